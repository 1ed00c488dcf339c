"""Read images and labels from parquet files, as the Hugging Face `datasets` library writes them."""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lifelong.data.cache import Cache
from lifelong.data.columns import class_names, count_rows, find_column, opened, read_images, read_labels, read_words
from lifelong.data.naming import shown
from lifelong.data.split_names import SPLITS, SplitName, is_word, split_of, usual_splits
from lifelong.errors import LifelongError


class ParquetSplit:
    """The rows of one split, read when they are asked for.

    Args:
        files: its files in order.
        image_columns, label_columns: names that the two columns may have; the first one found is read.

    Raises:
        LifelongError: a file is truncated, not a parquet file, or lacks a column; every error names the file.
    """

    def __init__(self, files: Sequence[Path], image_columns: Sequence[str], label_columns: Sequence[str]) -> None:
        self.files = list(files)
        self.place = self.files[0].parent
        self.rows = 0
        self._ends: list[int] = []  # of each file, the row of the split behind its last one
        self._columns: list[tuple[str, str]] = []
        self._names: list[tuple[str, ...] | None] = []
        for file in self.files:
            with opened(file) as parquet:
                schema = parquet.schema_arrow
                self.rows += count_rows(file, parquet)
                self._ends.append(self.rows)
                image = find_column(file, schema.names, image_columns, "images")
                label = find_column(file, schema.names, label_columns, "labels")
                self._columns.append((image, label))
                self._names.append(class_names(file, schema.metadata or {}, label))
        if not self.rows:
            raise LifelongError(f"{self.files[0]}: no rows")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Return the class names of the files in label order, or None."""
        for file, names in zip(self.files, self._names, strict=True):
            if names != self._names[0]:
                raise LifelongError(f"{file}: its classes are not those of {self.files[0].name}; write both with the same class names")
        return self._names[0]

    def labels(self) -> np.ndarray:
        """Read the label of each row as stored: int64, or strings (dtype object).

        Raises:
            LifelongError: a label is missing, or is not an integer, a truth value or a text.
        """
        parts = [read_labels(file, label) for file, (_, label) in zip(self.files, self._columns, strict=True)]
        if len({part.dtype for part in parts}) > 1:
            raise LifelongError(f"{self.files[0].parent}: some files hold labels as numbers and some as names; use one form")
        return np.concatenate(parts)

    def splits(self) -> tuple[str, np.ndarray] | None:
        """Find the column that names each row's split: its name and its values (dtype object); None if there is none."""
        parts = []
        name = ""
        for file in self.files:
            found = read_words(file)
            if found is None:
                return None
            name, values = found
            parts.append(values)
        words = np.concatenate(parts)
        return (name, words) if any(is_word(word or "") for word in dict.fromkeys(words.tolist())) else None

    def called(self, row: int) -> str:
        """Name a row by its file and its row there."""
        number = bisect_right(self._ends, row)
        return f"row {row - (self._ends[number - 1] if number else 0)} of {self.files[number].name}"

    def checksum(self, cache: Cache) -> str:
        """Compute a checksum of the files' bytes."""
        return cache.checksum(self.files)

    def sums(self, cache: Cache) -> list[Path]:
        """Return the files of the cache that remember digests of the files."""
        return [cache.sums_file(os.path.realpath(folder)) for folder in dict.fromkeys(os.path.dirname(file) for file in self.files)]

    def contents(self, cache: Cache) -> np.ndarray:
        """Return a 64-bit hash of each image's encoded bytes, uint64 of shape (rows,)."""
        return cache.numbers(self.files[0].parent.name, self.checksum(cache), self.rows, self._contents)

    def _contents(self) -> np.ndarray:
        hashes = [content_hash(encoded or b"") for batch, _ in self.images() for encoded in batch]
        return np.array(hashes, dtype=np.uint64)

    def images(self) -> Iterator[tuple[list[bytes | None], Callable[[int], str]]]:
        """Yield the encoded images in row order, in batches, each with a function that names the image at a position of the batch."""
        for file, (image, _) in zip(self.files, self._columns, strict=True):
            first = 0
            for batch in read_images(file, image):
                yield batch, lambda position, name=file.name, first=first: f"row {first + position} of {name}"
                first += len(batch)


def divided_rows(place: object, splits: Mapping[SplitName, ParquetSplit]) -> tuple[dict[SplitName, np.ndarray], tuple[str, ...]]:
    """Divide the rows of files that have only a train split by their split column, if they have one: bool of shape (rows,) per split.

    Args:
        place: where the files are, for error lines.
        splits: the files as their names divide them.

    Returns:
        The rows, and notes about a column that is not used because it also holds other words.

    Raises:
        LifelongError: the column contradicts the files, or leaves no training images.
    """
    notes = []
    for part, split in splits.items():
        found = split.splits()
        if found is None:
            continue
        column, words = found
        distinct = list(dict.fromkeys(words.tolist()))
        meant = {word: split_of(word or "") for word in distinct}
        if set(meant.values()) == {part}:
            continue
        unknown = [str(word) for word in distinct if not is_word(word or "")]
        if unknown:
            notes.append(
                f"Column '{shown(column)}' of {split.files[0].name} is not used: it holds '{shown(unknown[0])}', which is not one of train,"
                f" valid, test; all rows are for {part}. To divide them, write a file for each split."
            )
            continue
        usual_splits(f"{place}, column '{column}'", [word for word in distinct if word])
        where = np.array([meant[word] for word in words], dtype=object)
        if set(splits) != {"train"}:
            row = int(np.flatnonzero(where != part)[0])
            raise LifelongError(
                f"{place}: row {row} of {split.files[0].name} is for {where[row]} by its column '{column}', but the file is read as {part};"
                " name the files of train alone (?train=FILE), or drop the column"
            )
        if "train" not in where:
            raise LifelongError(f"{place}: no row of column '{column}' is for train; correct it, or drop the column")
        return {name: where == name for name in SPLITS if (where == name).any()}, ()
    return {}, tuple(notes)


def content_hash(encoded: bytes) -> int:
    """Return the first 64 bits of the sha256."""
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big")
