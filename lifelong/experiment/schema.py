"""What the JSON files of a run may hold: what is of another kind is one line, with the place in the file.

Keys that are not named here pass, and none but the first few must be there: earlier versions wrote fewer, and methods write their own.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from lifelong.errors import DamagedError, LifelongError
from lifelong.json_files import read_record
from lifelong.records.base import Count, Kept, Number, said
from lifelong.records.renames import SCHEMA_VERSION, renamed
from lifelong.records.run import RunRecord

T = TypeVar("T")


class Identity(Kept):
    """identity.json."""

    version: int | None = None
    stream: str | None = None
    method: str | None = None
    seed: Count | None = None
    library: str | None = None
    stream_images: Annotated[str | None, Field(alias="stream images")] = None
    extractor_weights: Annotated[str | None, Field(alias="extractor weights")] = None
    extractor_digest: Annotated[str | None, Field(alias="extractor digest")] = None

    @model_validator(mode="after")
    def _knows_its_images(self) -> "Identity":
        if self.version is not None and None in (self.stream, self.method, self.seed, self.stream_images):
            raise ValueError("one of 'stream', 'method', 'seed' and 'stream images' is missing")
        return self


class Epoch(Kept):
    """A line of curves.jsonl."""

    task: Count
    candidate: Count | None = None
    stage: str
    epoch: Count
    loss: Number = None
    accuracy: Number = None


class Added(BaseModel):
    """An entry of added.json."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    source: str
    fingerprint: str
    content: str = ""


class LaterError(LifelongError):
    """A file is of a form that a later version writes."""


Kind = Literal["summary", "identity", "curves", "added"]
_KINDS: dict[Kind, Any] = {"summary": RunRecord, "identity": Identity, "curves": Epoch, "added": list[Added]}


@cache
def _adapter(kind: Kind) -> TypeAdapter:
    return TypeAdapter(_KINDS[kind])


def hold(kind: Kind, value: T) -> T:
    """Hold what was read against what may be there.

    Returns:
        The value, as it was read.

    Raises:
        ValueError: it is of another kind; the message is one line and names the place.
    """
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(said(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def read_held(file: Path, kind: Kind) -> tuple[dict[str, Any], bool]:
    """Read a JSON file of a run, and hold it against what may be there.

    Args:
        file: the file.
        kind: of which it is.

    Returns:
        What stands there without its digest, and whether it carried one.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not as it was written, or something in it is of another kind.
        LifelongError: it cannot be read.
    """
    record, checked = read_record(file)
    # Digests are of the record as it was written: new names come after they were checked.
    record = _of_this_version(file, record) if kind == "summary" else record
    try:
        # One without its tasks is held with them (see `lifelong.experiment.summaries`).
        return (record if kind == "summary" and "learned" in record else hold(kind, record)), checked
    except ValueError as error:
        raise DamagedError(f"cannot read {file}: {' '.join(str(error).split())}") from error


def _of_this_version(file: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return a summary under the names of this version."""
    form = record.get("schema_version", 1)
    if isinstance(form, int) and form > SCHEMA_VERSION:
        writer = f" ({record['version']})" if isinstance(record.get("version"), str) else ""
        raise LaterError(
            f"{file} was written by a later version of lifelong{writer}, in schema {form}; this version reads"
            f" up to {SCHEMA_VERSION}; update it"
        )
    if form == 1:
        record = {key: value for key, value in record.items() if key != "schema_version"}
    return renamed("summary", record)


_PARTS: dict[str, type] = {"entries": list, "accuracy": list, "digests": list}
_LATER_PARTS: dict[str, type] = {"summary": dict, "identity": dict, "added": list}  # the first versions did not keep them


# `Any`: a tree that was read, of which nothing is known yet.
def hold_outline(tree: Any) -> None:
    """Check that a tree is a run's state in outline: that whoever asks it for its tasks gets an answer.

    Raises:
        ValueError: it is not; the message is one line.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"a {type(tree).__name__} where a run's state should be")
    missing = [key for key in ("method", *_PARTS) if key not in tree]
    if missing:
        raise ValueError(f"'{missing[0]}' is missing")
    for key, kind in (_PARTS | _LATER_PARTS).items():
        if not isinstance(tree.get(key, kind()), kind):
            raise ValueError(f"'{key}' is a {type(tree[key]).__name__}, not a {kind.__name__}")
    if not tree["entries"] or not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in tree["entries"]):
        raise ValueError("'entries' are not those of tasks")


def epochs_of(lines: Iterable[Any]) -> tuple[list[dict[str, Any]], bool]:
    """Take the lines of curves.jsonl that are what they may be.

    Returns:
        Those, and whether that is all.
    """
    kept, whole = [], True
    for line in lines:
        try:
            kept.append(hold("curves", line))
        except ValueError:
            whole = False
    return kept, whole
