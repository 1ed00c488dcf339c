"""List the images of a CSV file."""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lifelong.data.files import FileSplit, Listing
from lifelong.data.naming import shown
from lifelong.data.split_names import COLUMNS, SplitName, is_word, split_of
from lifelong.errors import LifelongError
from lifelong.opening import read_text
from lifelong.words import counted


def list_csv(
    file: Path, image: Sequence[str], label: Sequence[str], parts: Mapping[SplitName, Sequence[str]], column: str | None = None
) -> Listing:
    """List the images of a CSV file: a column of paths relative to its folder, a column of labels, and optionally one of splits.

    Args:
        file: UTF-8, its first line names the columns; separated by commas, or by semicolons or tabs where that line has no comma.
        image, label: names that the two columns may have; the first one found is read.
        parts: for each split the values of the split column that mean it; empty: the usual names.
        column: the split column; None: the one with a usual name, such as `split` or `fold`.

    Raises:
        LifelongError: the list cannot be read, lacks a column or a value, or names a file that is missing or not below its folder.
    """
    columns, rows = _table(file)
    for line, row in rows:
        if len(row) != len(columns):
            raise LifelongError(f"{file}, line {line}: {len(row)} values where the first line names {len(columns)} columns")
    at_image, at_label = (_column(file, columns, names, what) for names, what in ((image, "image"), (label, "label")))
    at_split, notes = _split_column(file, columns, [row for _, row in rows], parts, column)
    found: dict[SplitName, tuple[list[str], list[str]]] = {}
    missing: list[str] = []
    for line, row in rows:
        split = "train" if at_split is None else _split_of(file, line, columns[at_split], row[at_split], parts)
        if split is None:
            continue
        name = row[at_image].strip()
        for value, called in ((name, columns[at_image]), (row[at_label].strip(), columns[at_label])):
            if not value:
                raise LifelongError(f"{file}, line {line}: column '{called}' is empty")
        if not os.path.isfile(file.parent / _below(file, line, name)):  # also for names that no file has
            missing.append(shown(name))
        names, labels = found.setdefault(split, ([], []))
        names.append(name)
        labels.append(row[at_label].strip())
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise LifelongError(
            f"{file}: {counted(len(missing), 'image')} missing: {', '.join(missing[:5])}{more}; paths are relative to its folder"
        )
    if "train" not in found:
        raise LifelongError(
            f"{file}: no images for train; mark some as train in the column 'split', or say which value means train: ?train=VALUE"
        )
    return Listing({split: FileSplit(file, file.parent, *lists) for split, lists in found.items()}, notes)


def _split_column(
    file: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], parts: Mapping[SplitName, Sequence[str]], wanted: str | None
) -> tuple[int | None, tuple[str, ...]]:
    """Find the column of splits, if there is one, and return notes about columns that look like one.

    Raises:
        LifelongError: the column that was named is not there, or two columns may be meant.
    """
    if wanted is not None:
        return _column(file, columns, (wanted,), "split"), ()
    usual = [at for at, name in enumerate(columns) if name.lower() in COLUMNS]
    if "split" in columns:
        return columns.index("split"), ()
    known = {value for values in parts.values() for value in values}
    held = {at: dict.fromkeys(row[at].strip() for row in rows) for at in usual}
    meant = [at for at in usual if any(value in known if parts else is_word(value) for value in held[at])]
    if len(meant) > 1:
        raise LifelongError(
            f"{file}: the columns {' and '.join(repr(columns[at]) for at in meant)} both name splits; say which is meant: ?split=COLUMN"
        )
    if meant:
        return meant[0], ()
    notes = [
        f"Column '{shown(columns[at])}' ({_some(list(held[at]))}) is not used; say which of its values make which split:"
        f" ?split={shown(columns[at])}&train=...&test=..."
        for at in usual
    ]
    return None, tuple(notes)


def _some(values: Sequence[str]) -> str:
    return ", ".join(map(shown, values[:3])) + ", ..." * (len(values) > 3)


def _table(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read the names of the columns, and the rows with their line numbers."""
    try:
        text = read_text(file, encoding="utf-8-sig")
    except OSError as error:
        raise LifelongError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LifelongError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    head = text.partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in head), ",")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise LifelongError(f"{file}, line {reader.line_num}: {error}") from error
    if not rows:
        raise LifelongError(f"{file}: empty; its first line names the columns")
    if len(rows) == 1:
        raise LifelongError(f"{file}: no images: it has only the line that names the columns; add a line for each image")
    return [name.strip() for name in rows[0][1]], rows[1:]


def _column(file: Path, columns: Sequence[str], wanted: Sequence[str], what: str) -> int:
    """Find the first column with one of these names; if none matches exactly, ignore case."""
    small = [column.lower() for column in columns]
    for there, names in ((list(columns), wanted), (small, [name.lower() for name in wanted])):
        for name in names:
            if name in there:
                return there.index(name)
    raise LifelongError(f"{file}: no column '{wanted[0]}'; its columns: {', '.join(map(shown, columns))} (say which: ?{what}=COLUMN)")


def _split_of(file: Path, line: int, column: str, value: str, parts: Mapping[SplitName, Sequence[str]]) -> SplitName | None:
    """Return the split of a row; None if the address names the wanted values and this is not one of them."""
    if parts:
        return next((split for split, values in parts.items() if value.strip() in values), None)
    split = split_of(value)
    if split is None:
        raise LifelongError(
            f"{file}, line {line}: {column} '{shown(value)}' is not one of train, valid, test;"
            " say which values form them: ?train=VALUE&test=VALUE"
        )
    return split


def _below(file: Path, line: int, name: str) -> str:
    """Check that a path stays below the list's folder, and return it."""
    if os.path.isabs(name) or ".." in re.split(r"[/\\]", name) or "\0" in name:
        raise LifelongError(
            f"{file}, line {line}: '{shown(name)}' is outside the list's folder; move the list up, or the image into the folder"
        )
    return name
