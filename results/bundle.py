"""Measure exported bundles, and add rows to a table that is kept in git.

    python results/bundle.py TABLE.csv --command "lifelong export ..." BUNDLE [BUNDLE ...]

One row a bundle: its size; the time from the start of Python to the first answer, in processes of their own; the time for one more image,
from a PNG file of twice the models' image size to the answer, without and with the name of its task. Everything on one thread. Besides wall
time there is processor time, which other work on the machine hardly changes.
"""

import argparse
import csv
import datetime
import io
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lifelong.devices import processor_name
from lifelong.reproduction.commit import commit
from lifelong.runtime import Bundle

COLUMNS = (
    *("bundle", "method", "tasks", "image_size", "models", "megabytes", "largest_difference", "start_seconds", "start_cpu_seconds"),
    *("p50_ms", "p95_ms", "p95_cpu_ms", "named_p50_ms", "named_p95_ms", "named_p95_cpu_ms", "images"),
    *("command", "commit", "machine", "onnxruntime", "date"),
)

STARTS, WARM, IMAGES = 5, 10, 200


def main() -> int:
    """Read the command line and add the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--command", required=True, help="what made them")
    options = parser.parse_args()
    fresh = not options.table.exists()
    with options.table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if fresh:
            writer.writeheader()
        for bundle in options.bundles:
            writer.writerow(row(bundle, options.command))
    return 0


def row(folder: Path, command: str) -> dict[str, Any]:
    """Return the row of one bundle."""
    import onnxruntime

    about = json.loads((folder / "bundle.json").read_text())
    size, bundle = about["tasks"][0]["image_size"], Bundle(folder)
    start, start_cpu = started(folder, size)
    inferred = timed(lambda image: bundle.predict(image), size)
    # In turn, so that every expert is opened before it is timed, and all count.
    names = iter([name for _ in range(WARM + IMAGES) for name in bundle.tasks])
    for name in bundle.tasks:
        bundle.predict(picture(size, 0), name)
    named = timed(lambda image: bundle.predict(image, next(names)), size)
    return {
        "bundle": folder.name,
        "method": about["run"]["method"],
        "tasks": len(about["tasks"]),
        "image_size": size,
        "models": len(about["models"]),
        "megabytes": f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.2f}",
        "largest_difference": f"{about['checked']['largest_difference']:.2g}",
        "start_seconds": f"{start:.2f}",
        "start_cpu_seconds": f"{start_cpu:.2f}",
        **{key: f"{value:.1f}" for key, value in {**inferred, **{f"named_{key}": value for key, value in named.items()}}.items()},
        "images": IMAGES,
        "command": command,
        "commit": commit(),
        "machine": processor_name(),
        "onnxruntime": onnxruntime.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def started(folder: Path, size: int) -> tuple[float, float]:
    """Return the medians of wall and processor seconds from the start of a process to its first answer, PyTorch not imported."""
    code = "import sys; from lifelong.runtime import Bundle; Bundle(sys.argv[1]).predict(sys.stdin.buffer.read())"
    wall, cpu = [], []
    for number in range(STARTS):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", code, str(folder)], input=picture(size, number), check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.perf_counter() - began)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(wall), statistics.median(cpu)


def timed(answer: Callable[[bytes], object], size: int) -> dict[str, float]:
    """Return milliseconds per image: the median and the 95 % quantile of wall time, and the latter of processor time."""
    wall, cpu = [], []
    for number in range(WARM + IMAGES):
        image = picture(size, number)
        began, began_cpu = time.perf_counter(), time.process_time()
        answer(image)
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - began_cpu))
    wall, cpu = wall[WARM:], cpu[WARM:]
    return {"p50_ms": statistics.median(wall), "p95_ms": float(np.quantile(wall, 0.95)), "p95_cpu_ms": float(np.quantile(cpu, 0.95))}


def picture(size: int, seed: int) -> bytes:
    """Draw an image of twice the size, and return it as a PNG file."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8))
    file = io.BytesIO()
    small.resize((2 * size, 2 * size), Image.Resampling.BICUBIC).save(file, "png")
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
