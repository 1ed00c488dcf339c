"""Write what a run has learned as a bundle: ONNX files, their description, and the runtime that answers by them."""

import hashlib
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from lifelong import __version__
from lifelong.bundling.graphs import LARGEST, NORMALIZATION, Graph, graphs_of, output_name
from lifelong.digests import run_digest, signed
from lifelong.errors import LifelongError
from lifelong.experiment.saved import SavedRun
from lifelong.runtime.description import FORMATS, NAME, model_file

RUNTIME = "runtime.pyz"
"""The runtime in one file, which needs ONNX Runtime, Pillow and NumPy, but neither this library nor PyTorch."""

RUNTIME_MODULES = (
    *("lifelong/__init__.py", "lifelong/errors.py", "lifelong/opening.py", "lifelong/digests.py", "lifelong/prediction.py"),
    *("lifelong/data/__init__.py", "lifelong/data/budget.py", "lifelong/data/decoding.py", "lifelong/data/files.py"),
    *("lifelong/data/given.py", "lifelong/data/naming.py", "lifelong/data/pixel_formats.py", "lifelong/data/split_names.py"),
    *("lifelong/data/squares.py", "lifelong/runtime/__init__.py", "lifelong/runtime/__main__.py", "lifelong/runtime/bundle.py"),
    *("lifelong/runtime/description.py", "lifelong/runtime/model_files.py"),
)
"""What `lifelong.runtime` imports."""

START = "import sys\n\nfrom lifelong.runtime.__main__ import main\n\nsys.exit(main())\n"
"""What Python runs when it is given the file."""

STRANGE_ABOVE = 1.0
"""See `Method.strangeness`."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of the files in the runtime, so that equal code gives equal bytes."""


# `Any`: plain values, as JSON says them.
def write_models(folder: Path, saved: SavedRun) -> dict[str, Any]:
    """Write the models of a run into a folder, and return their description, not yet signed.

    Raises:
        LifelongError: a network cannot be written as ONNX, or is too large for it.
    """
    sizes = [entry.side for entry in saved.entries]
    graphs = graphs_of(saved.method, sizes)
    about = _description(saved, graphs)
    for position, graph in enumerate(graphs):
        properties = {
            "lifelong": json.dumps(
                {key: about[key] for key in ("format", "lifelong", "made_with", "run", "recognizes", "strange_above")}
                | {"tasks": [task for task in about["tasks"] if task["model"] == position], "gives": list(graph.gives)}
            )
        }
        for key, value in properties.items():
            graph.model.metadata_props.add(key=key, value=value)
        if graph.model.ByteSize() > LARGEST:
            raise LifelongError(f"{saved.directory.path}: its networks take more than 2 GB, which an ONNX file cannot hold")
        content = graph.model.SerializeToString(deterministic=True)
        (folder / model_file(position)).write_bytes(content)
        about["models"][position]["sha256"] = hashlib.sha256(content).hexdigest()
    return about


def _description(saved: SavedRun, graphs: list[Graph]) -> dict[str, Any]:
    method, limits = saved.method, saved.method.limits()
    of_task = {task: position for position, graph in enumerate(graphs) for task in graph.tasks}
    return {
        "format": FORMATS[any(NORMALIZATION in graph.inputs for graph in graphs)],
        "lifelong": __version__,
        "made_with": {name: version(name) for name in ("torch", "onnx", "onnxscript")},
        "run": {"digest": run_digest(saved.identity), "method": method.name},
        "together": method.batch_dependent,
        "models": [
            {"file": model_file(position), "sha256": "", "inputs": graph.inputs, "gives": list(graph.gives)}
            for position, graph in enumerate(graphs)
        ],
        "recognizes": [name for graph in graphs[:1] for name in graph.recognizes],
        "strange_above": STRANGE_ABOVE,
        "tasks": [
            {
                "name": name,
                "classes": list(saved.classes(index)),
                "image_size": saved.entries[index].side,
                "normalization": {key: list(values) for key, values in asdict(method.tasks[index].normalization).items()},
                "limit": None if limits is None else limits[index],
                "model": of_task[index],
                "output": output_name(index),
            }
            for index, name in enumerate(saved.names)
        ],
    }


def write_description(folder: Path, about: dict[str, Any]) -> None:
    """Write the description with its digest."""
    (folder / NAME).write_text(json.dumps(signed(about), indent=1) + "\n", encoding="utf-8")


def write_runtime(folder: Path) -> None:
    """Write the runtime as one file that Python runs and imports."""
    package = files("lifelong")
    with zipfile.ZipFile(folder / RUNTIME, "w") as archive:
        archive.writestr(_entry("__main__.py"), START)
        for name in RUNTIME_MODULES:
            archive.writestr(_entry(name), package.joinpath(*name.split("/")[1:]).read_bytes())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def in_place(folder: Path, fill: Callable[[Path], None]) -> None:
    """Create a bundle, or replace an earlier one, in one step: `fill` writes into a temporary folder beside it.

    Raises:
        LifelongError: the folder holds something that no bundle has, or cannot be written to.
    """
    folder = folder.absolute()
    try:
        if folder.is_symlink() or (folder.exists() and not _is_bundle(folder)):
            raise LifelongError(f"{folder}: not an empty folder, and not a bundle; give another folder to --bundle")
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        part.mkdir()
        try:
            fill(part)
            aside = part.with_name(f"{part.name}-old")
            if folder.exists():
                folder.rename(aside)
            part.rename(folder)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise LifelongError(f"cannot write {folder}: {error.strerror or error}; free space there, or give another folder") from error


def _is_bundle(folder: Path) -> bool:
    """Tell whether a folder is empty, or holds the files of a bundle and nothing else."""
    if not folder.is_dir():
        return False
    names = {entry.name for entry in os.scandir(folder)}
    models = {name for name in names if name.startswith("model-") and name.endswith(".onnx")}
    return not names or (NAME in names and names - models <= {NAME, RUNTIME})
