"""Images and labels in parquet files, as the Hugging Face `datasets` library writes them."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.data.cache import Cache
from lifelong.data.catalog import PoolName
from lifelong.data.naming import shown
from lifelong.data.words import COLUMNS, SPLITS, is_word, split_of, usual_splits
from lifelong.errors import LifelongError

_BATCH = 1024  # images decoded at a time, at most
_BATCH_BYTES = 64 * 2**20  # and about so many bytes of them


class ParquetSplit:
    """The rows of one split, read when they are asked for.

    Args:
        files: its files in order.
        image_columns, label_columns: names that the two columns may have; the first that is there is read.

    Raises:
        LifelongError: a file is truncated or no parquet file, or lacks a column; every error names the file.
    """

    def __init__(self, files: Sequence[Path], image_columns: Sequence[str], label_columns: Sequence[str]) -> None:
        import pyarrow.parquet as pq

        self.files = list(files)
        self.place = self.files[0].parent
        self.rows = 0
        self._ends: list[int] = []  # of each file, the row of the split behind its last one
        self._columns: list[tuple[str, str]] = []
        self._names: list[tuple[str, ...] | None] = []
        for file in self.files:
            with _reading(file), pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                self._ends.append(self.rows + opened.metadata.num_rows)
                self.rows = self._ends[-1]
            image = _column(file, schema.names, image_columns, "images")
            label = _column(file, schema.names, label_columns, "labels")
            self._columns.append((image, label))
            self._names.append(_class_names(file, schema.metadata or {}, label))
        if not self.rows:
            raise LifelongError(f"{self.files[0]}: no rows")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names in label order that the files give, or None."""
        for file, names in zip(self.files, self._names, strict=True):
            if names != self._names[0]:
                raise LifelongError(f"{file}: its classes are not those of {self.files[0].name}; write both with the same class names")
        return self._names[0]

    def labels(self) -> np.ndarray:
        """The label of each row as stored: int64, or strings (dtype object).

        Raises:
            LifelongError: a label is missing or neither whole number, truth value nor text.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = []
        for file, (_, label) in zip(self.files, self._columns, strict=True):
            with _reading(file), pq.ParquetFile(file) as opened:
                column = opened.read(columns=[label]).column(label)
            if column.null_count:
                raise LifelongError(f"{file}: {column.null_count} rows of column '{label}' are empty; every image needs a label")
            kind = column.type
            if pa.types.is_dictionary(kind):
                column, kind = column.cast(kind.value_type), kind.value_type
            if pa.types.is_string_view(kind):
                column, kind = column.cast(pa.string()), pa.string()
            if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
                # Neither `pq.read_table` nor `to_numpy`: both import pandas, a second of every start.
                chunks = column.cast(pa.int64(), safe=False).chunks
                parts.append(np.concatenate([np.empty(0, np.int64), *(np.from_dlpack(chunk) for chunk in chunks)]))
            elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
                parts.append(np.array(column.to_pylist(), dtype=object))
            else:
                raise LifelongError(f"{file}: column '{label}' holds {kind}; labels are whole numbers or names")
        if len({part.dtype for part in parts}) > 1:
            raise LifelongError(f"{self.files[0].parent}: some files hold labels as numbers and some as names; use one form")
        return np.concatenate(parts)

    def splits(self) -> tuple[str, np.ndarray] | None:
        """The column that says by words which split a row belongs to: its name and its values (dtype object); None: there is none."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = []
        name = ""
        for file in self.files:
            with _reading(file), pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                name = next((column for column in schema.names if column.lower() in COLUMNS), "")
                if not name:
                    return None
                kind = schema.field(name).type
                kind = kind.value_type if pa.types.is_dictionary(kind) else kind
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                    return None
                parts.append(np.array(opened.read(columns=[name]).column(name).to_pylist(), dtype=object))
        words = np.concatenate(parts)
        return (name, words) if any(is_word(word or "") for word in dict.fromkeys(words.tolist())) else None

    def called(self, row: int) -> str:
        """Its file and its row there."""
        number = bisect_right(self._ends, row)
        return f"row {row - (self._ends[number - 1] if number else 0)} of {self.files[number].name}"

    def checksum(self, cache: Cache) -> str:
        """Of the files' bytes."""
        return cache.checksum(self.files)

    def contents(self, cache: Cache) -> np.ndarray:
        """A 64-bit hash of each image's encoded bytes, uint64 of shape (rows,)."""
        return cache.numbers(self.files[0].parent.name, self.checksum(cache), self.rows, self._contents)

    def _contents(self) -> np.ndarray:
        hashes = [content_hash(encoded or b"") for batch, _ in self.images() for encoded in batch]
        return np.array(hashes, dtype=np.uint64)

    def images(self) -> Iterator[tuple[list[bytes | None], Callable[[int], str]]]:
        """The encoded images in row order, a batch at a time, with what names the image at a position of the batch."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file, (image, _) in zip(self.files, self._columns, strict=True):
            first = 0
            with _reading(file), pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(_batch(opened.metadata, image), columns=[image]):
                    column: Any = batch.column(0)
                    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
                        column = column.flatten()[column.type.get_field_index("bytes")]
                    kind = column.type
                    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
                    if not any(is_kind(kind) for is_kind in binary):
                        raise LifelongError(f"{file}: column '{image}' holds {column.type}; images are stored as encoded bytes")
                    yield column.to_pylist(), lambda position, name=file.name, first=first: f"row {first + position} of {name}"
                    first += len(column)


def divided_rows(place: object, splits: Mapping[PoolName, ParquetSplit]) -> tuple[dict[PoolName, np.ndarray], tuple[str, ...]]:
    """For each split which rows of the only files are its own, bool of shape (rows,), where a column of theirs says so; else nothing.

    Args:
        place: where the files are, for error lines.
        splits: the files as their names divide them.

    Returns:
        The rows, and what is to be said of a column that is not used because it holds other words too.

    Raises:
        LifelongError: the column contradicts the files, or leaves none to learn from.
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
        strange = [str(word) for word in distinct if not is_word(word or "")]
        if strange:
            notes.append(
                f"Column '{shown(column)}' of {split.files[0].name} is not used: it holds '{shown(strange[0])}', which is none of train,"
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
            raise LifelongError(f"{place}: no row of column '{column}' is for train; mend it, or drop the column")
        return {name: where == name for name in SPLITS if (where == name).any()}, ()
    return {}, tuple(notes)


def _batch(metadata: Any, image: str) -> int:
    """How many rows to take at a time: photographs are a thousand times as large as digits."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    stored = sum(column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] == image)
    return max(1, min(_BATCH, _BATCH_BYTES * metadata.num_rows // max(1, stored)))


@contextmanager
def _reading(file: Path) -> Generator[None]:
    """Turns what pyarrow says of a broken file into one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LifelongError(f"{file}: truncated or not a parquet file ({reason}); copy or download it again") from error


def _column(file: Path, names: Sequence[str], wanted: Sequence[str], what: str) -> str:
    for name in wanted:
        if name in names:
            return name
    raise LifelongError(
        f"{file}: no column '{wanted[0]}' for the {what}; its columns: {', '.join(names)}"
        f" (behind parquet: or hub: say which: ?{what.removesuffix('s')}=COLUMN)"
    )


def _class_names(file: Path, metadata: dict[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """The names of a ClassLabel column, from the header that `datasets` writes."""
    if b"huggingface" not in metadata:
        return None
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features.get(label, {}).get("names")
        return tuple(str(name) for name in names) if names else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LifelongError(f"{file}: its 'huggingface' header cannot be read ({error!r}); write the file again with `datasets`") from error


def content_hash(encoded: bytes) -> int:
    """The first 64 bits of a file's sha256."""
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big")
