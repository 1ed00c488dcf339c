"""Read parquet files once in a separate process before this one reads them, so that a crash happens there.

The library that reads them is large and written in C++; a malicious file can exhaust its memory, or make it abort. A file that another
process has read completely within its memory limit is read here by the same code. This is done once for the same file and the same library
(`lifelong.data.cache`).
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lifelong.data.columns import class_names, count_rows, find_column, opened, read_images, read_labels, read_words
from lifelong.errors import LifelongError

try:
    import resource
except ImportError:  # Windows has none: there, only an abort is found
    resource = None

VETTING_VERSION = 1
"""Incremented whenever other files would be refused."""

MEMORY = 2 * 2**30
"""Bytes that reading a file may take."""

_MAIN = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from lifelong.data.vetting import main; main()"

log = logging.getLogger(__name__)


def read_apart(files: Sequence[Path], image_columns: Sequence[str], label_columns: Sequence[str]) -> None:
    """Read parquet files in a separate process.

    Args:
        files: the files.
        image_columns, label_columns: names that the two columns may have.

    Raises:
        LifelongError: a file cannot be read, ended the process, or takes too much memory.
    """
    if not sys.executable:
        log.warning("parquet files are not checked in a separate process first, because sys.executable is not set")
        return
    asked = json.dumps([list(map(str, map(os.path.abspath, files))), list(image_columns), list(label_columns)])
    # Memory of the C library: arenas of another allocator would count before they are used.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, json.dumps(sys.path)],
        input=asked.encode("utf-8", "surrogateescape"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    told = done.stdout.decode(errors="replace").splitlines()
    if done.returncode == 0 and len(told) == len(files):
        said = next((line for line in told if line), "")
        if said:
            raise LifelongError(said)
        return
    file = files[min(len(told), len(files) - 1)]
    raise LifelongError(f"{file}: the process that read it {_end(done.returncode)}; it is damaged or malicious; copy or download it again")


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def main() -> None:
    """Read the files named on standard input, and write a line for each: empty, or what is wrong with it."""
    files, image_columns, label_columns = json.loads(sys.stdin.buffer.read().decode("utf-8", "surrogateescape"))
    _limit_memory()
    for said in vet(map(Path, files), image_columns, label_columns):
        print(said.encode(errors="replace").decode(), flush=True)


def vet(files: Iterable[Path], image_columns: Sequence[str], label_columns: Sequence[str]) -> Iterable[str]:
    """Read files as a source does, and yield a line for each: empty, or what is wrong with it."""
    for file in files:
        try:
            _read(file, image_columns, label_columns)
        except MemoryError:
            yield f"{file}: {_TOO_MUCH}"
        except LifelongError as error:
            yield f"{file}: {_TOO_MUCH}" if isinstance(error.__cause__, MemoryError) else " ".join(str(error).split())
        else:
            yield ""


_TOO_MUCH = f"takes more than {MEMORY // 2**30} GB of memory to be read; write it in smaller row groups, without dictionaries"


def _read(file: Path, image_columns: Sequence[str], label_columns: Sequence[str]) -> None:
    with opened(file) as parquet:
        count_rows(file, parquet)
        schema = parquet.schema_arrow
        image = find_column(file, schema.names, image_columns, "images")
        label = find_column(file, schema.names, label_columns, "labels")
        class_names(file, schema.metadata or {}, label)
    read_labels(file, label)
    read_words(file)
    for _ in read_images(file, image):
        pass


def _limit_memory() -> None:
    """Limit this process to `MEMORY` more bytes of address space than it has now, where the system can count them."""
    status = Path("/proc/self/statm")
    if resource is None or not status.exists():
        return
    import pyarrow.parquet  # noqa: F401  (before: it takes address space of its own)

    now = int(status.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = now + MEMORY if hard == resource.RLIM_INFINITY else min(hard, now + MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
