"""Read the columns of one parquet file in pieces, within limits; every error is one line with the file's name.

A file of a few kilobytes can claim to hold gigabytes: one value of a dictionary may stand for a million rows. So the unpacked size is
checked against the file's size.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.data.naming import shown
from lifelong.data.split_names import COLUMNS
from lifelong.errors import LifelongError
from lifelong.opening import open_regular

MOST_ROWS = 2**20
"""Rows that a file may always have; more, if it has a byte for each."""

MOST_UNPACKED = 2**30
"""Bytes that the images of a file may always unpack to; more, if they are not `MOST_TIMES` its size."""

MOST_TIMES = 100

_BATCH = 1024  # images at a time, at most
_BATCH_BYTES = 64 * 2**20  # and about so many bytes of them
_BUFFER = 2**20  # bytes of a column that are read at once: else all of a row group would be


@contextmanager
def opened(file: Path) -> Generator[Any]:
    """Open a parquet file with pyarrow for a block, and turn its errors into one line."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(file) as bare, pq.ParquetFile(bare, buffer_size=_BUFFER) as parquet:
            yield parquet
    except MemoryError as error:
        raise LifelongError(f"{file}: reading it needs more memory than there is; write it in smaller row groups") from error
    except UnicodeDecodeError as error:
        raise LifelongError(f"{file}: holds text that is not UTF-8; write it as UTF-8") from error
    except (pa.ArrowException, OSError, EOFError, ValueError, OverflowError, KeyError) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise LifelongError(f"{file}: truncated or not a parquet file ({shown(reason)}); copy or download it again") from error


def count_rows(file: Path, parquet: Any) -> int:
    """Return how many rows a file has.

    Raises:
        LifelongError: more than a file of its size can hold.
    """
    rows, size = parquet.metadata.num_rows, file.stat().st_size
    if not 0 <= rows <= max(MOST_ROWS, size):
        raise LifelongError(f"{file}: claims {rows} rows in {size} bytes; it is damaged or malicious")
    return rows


def find_column(file: Path, names: Sequence[str], wanted: Sequence[str], what: str) -> str:
    """Return the first of the wanted columns that a file has.

    Raises:
        LifelongError: it has none.
    """
    for name in wanted:
        if name in names:
            return name
    raise LifelongError(
        f"{file}: no column '{wanted[0]}' for the {what}; its columns: {', '.join(map(shown, names))}"
        f" (after parquet: or hub:, name it: ?{what.removesuffix('s')}=COLUMN)"
    )


def class_names(file: Path, metadata: dict[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """Return the names of a ClassLabel column, from the header that `datasets` writes.

    Raises:
        LifelongError: the header cannot be read.
    """
    if b"huggingface" not in metadata:
        return None
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features.get(label, {}).get("names")
        return tuple(str(name) for name in names) if names else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = shown(repr(error))[:200]
        raise LifelongError(f"{file}: its 'huggingface' header cannot be read ({what}); write the file again with `datasets`") from error


def read_labels(file: Path, label: str) -> np.ndarray:
    """Read the label of each row as stored: int64, or strings (dtype object).

    Raises:
        LifelongError: a label is missing, or is not an integer, a truth value or a text.
    """
    import pyarrow as pa

    with opened(file) as parquet:
        column = parquet.read(columns=[label]).column(label)
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
            return np.concatenate([np.empty(0, np.int64), *(np.from_dlpack(chunk) for chunk in chunks)])
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return np.array(column.to_pylist(), dtype=object)
    raise LifelongError(f"{file}: column '{label}' holds {kind}; labels are integers or names")


def read_words(file: Path) -> tuple[str, np.ndarray] | None:
    """Read the column that may say which split a row belongs to: its name and its values (dtype object); None: there is none."""
    import pyarrow as pa

    with opened(file) as parquet:
        schema = parquet.schema_arrow
        name = next((column for column in schema.names if column.lower() in COLUMNS), "")
        if not name:
            return None
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            return None
        return name, np.array(parquet.read(columns=[name]).column(name).to_pylist(), dtype=object)


def read_images(file: Path, image: str) -> Iterator[list[bytes | None]]:
    """Read the encoded images in row order, a batch at a time.

    Raises:
        LifelongError: the column holds none, or they unpack to far more than the file's size.
    """
    import pyarrow as pa

    most, unpacked = max(MOST_UNPACKED, MOST_TIMES * file.stat().st_size), 0
    with opened(file) as parquet:
        for batch in parquet.iter_batches(_rows_at_once(parquet.metadata, image), columns=[image]):
            column: Any = batch.column(0)
            if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
                column = column.flatten()[column.type.get_field_index("bytes")]
            kind = column.type
            binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
            if not any(is_kind(kind) for is_kind in binary):
                raise LifelongError(f"{file}: column '{image}' holds {column.type}; images are stored as encoded bytes")
            # Before pyarrow 23, the bytes that a column of views refers to cannot be counted without those of its whole buffers.
            unpacked += column.get_total_buffer_size() if pa.types.is_binary_view(kind) else column.nbytes
            if unpacked > most:
                raise LifelongError(f"{file}: its images unpack to more than {MOST_TIMES} times its size; it is damaged or malicious")
            yield column.to_pylist()


def _rows_at_once(metadata: Any, image: str) -> int:
    """Return how many rows to read at a time: photographs are a thousand times as large as digits."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    stored = sum(column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] == image)
    return max(1, min(_BATCH, _BATCH_BYTES * metadata.num_rows // max(1, stored)))
