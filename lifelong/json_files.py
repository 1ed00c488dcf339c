"""JSON records with their digests: a file of one object, and files with one object a line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.digests import DIGEST, fits, signed
from lifelong.errors import DamagedError, LifelongError
from lifelong.opening import MOST_SETTINGS, parse_json, read_json, read_text
from lifelong.storage import Seal, write_text


@dataclass(frozen=True)
class Lines:
    """The objects of a JSON-lines file.

    Attributes:
        found: in order, without their digests.
        lost: how many lines are damaged, and left out.
        torn: whether the last line has no end: it was being written when the power failed.
        checked: whether each carried a digest.
    """

    found: list[dict[str, Any]]
    lost: int = 0
    torn: bool = False
    checked: bool = True

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.lost and not self.torn


def read_lines(path: Path, seal: Seal | None = None) -> Lines:
    """Return the objects of a JSON-lines file that are as they were written; a damaged line costs that line only.

    Args:
        path: the file; none is as an empty one.
        seal: of the run whose lines they are; None: digests are not looked at.

    Raises:
        LifelongError: the file cannot be read.
    """
    try:
        text = read_text(path, errors="replace")
    except FileNotFoundError:
        return Lines([])
    except OSError as error:
        raise LifelongError(f"cannot read {path}: {error.strerror}; delete it and run again") from error
    found, lost, checked = [], 0, True
    lines = text.split("\n")
    torn = bool(lines.pop())
    for line in lines:
        try:
            record = parse_json(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            lost += 1
            continue
        good = None if seal is None else fits(record, seal.run)
        if good is False or (good is None and seal is not None and seal.required):
            lost += 1
            continue
        checked = checked and good is not None
        found.append({key: value for key, value in record.items() if key != DIGEST})
    return Lines(found, lost, torn, checked)


def as_lines(records: list[dict[str, Any]], owner: str) -> str:
    """Return the text of a JSON-lines file, each line with its digest."""
    return "".join(f"{json.dumps(signed(record, owner))}\n" for record in records)


def write_record(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Create or replace a JSON file of one object in one step, with its digest; returns what stands there."""
    content = signed(record)
    write_text(path, json.dumps(content, indent=1) + "\n")
    return content


def read_record(path: Path) -> tuple[dict[str, Any], bool]:
    """Read what `write_record` wrote.

    Returns:
        The object without its digest, and whether it carried one.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not as it was written.
        LifelongError: it cannot be read.
    """
    try:
        record = read_json(path, 16 * MOST_SETTINGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LifelongError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DamagedError(f"cannot read {path}: damaged ({error})") from error
    good = fits(record) if isinstance(record, dict) else False
    if good is False:
        raise DamagedError(f"cannot read {path}: damaged (its content does not fit its digest)")
    return {key: value for key, value in record.items() if key != DIGEST}, good is True
