"""Read and compare summary.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifelong.digests import DIGEST, signed
from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.schema import LaterError, read_held
from lifelong.records.run import RunRecord

SUMMARY = "summary.json"


def read_summary(path: Path) -> RunRecord:
    """Return the summary.json of a run directory.

    Raises:
        DamagedError: it was damaged or changed.
        LifelongError: there is none, or it cannot be read.
    """
    file = Path(path) / SUMMARY
    try:
        content, checked = read_held(file, "summary")
    except FileNotFoundError as error:
        raise LifelongError(f"no summary.json in {path}: not a run directory, or no task is finished yet") from error
    except DamagedError as error:
        raise DamagedError(f"{error}; delete it and continue that run to write it again") from error
    except LaterError:
        raise
    except LifelongError as error:
        raise LifelongError(f"{error}; delete it and continue that run to write it again") from error
    return RunRecord.model_validate(signed(content) if checked else content)


# `Any`: two records of the same form, with fields of any type.
def differing(read: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """Return the keys in which a summary that was read differs from the expected one."""
    return [key for key in dict.fromkeys([*summary, *read]) if key != DIGEST and read.get(key) != summary.get(key)]
