"""Export a task's network, or those of all tasks, as a file that runs without this library."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.bundling.check import Checked, check_bundle
from lifelong.bundling.write import in_place, write_description, write_models, write_runtime
from lifelong.data.augment import normalize
from lifelong.errors import LifelongError
from lifelong.experiment.run import extractor_opener
from lifelong.experiment.saved import open_run
from lifelong.extras import require_extra
from lifelong.methods.method import Method
from lifelong.opening import refuse_links
from lifelong.predictor import Predictor
from lifelong.records.descriptions import Exported, ExportedAll, ExportedBundle, ExportedTask
from lifelong.runtime.bundle import Bundle
from lifelong.runtime.description import read_description
from lifelong.settings.arguments import Place, checked
from lifelong.settings.run import Environment, EnvironmentOptions, environment_of
from lifelong.storage import write_file
from lifelong.training.process import alone
from lifelong.words import file_name

Format = Literal["onnx", "torch"]

ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}

PROBES = 7
"""Number of images to check the file with: not the number used for tracing, so that a fixed batch size would be noticed."""

BATCH_AXIS = "n"
"""Name of the batch dimension in an ONNX file."""

TOLERANCE = 1e-3
"""Largest difference of logits from the method's, relative to the largest logit: runtimes order float32 sums differently."""


class TaskNetwork(nn.Module):
    """The network of one task, including its normalization.

    Args:
        method: a method that has learned the task.
        task_index: index of the task, from 0.
    """

    def __init__(self, method: Method, task_index: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(method.modules(task_index))
        self._method, self._task = method, task_index

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Compute the logits of uint8 RGB images."""
        return self._method.predict(normalize(images, self._method.tasks[self._task].normalization), self._task)


class AllTasks(nn.Module):
    """The networks of all tasks, including their normalization, and what tells their images apart. What tasks share is held once.

    Args:
        method: a method that has learned a task at least.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        distinct = {id(module): module for task in range(len(method.tasks)) for module in method.modules(task)}
        self.parts = nn.ModuleList(distinct.values())
        self._method = method

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n _"], ...]:
        """Compute the logits of every task, followed by task probabilities (n, t) if the networks themselves give them."""
        logits, tasks = self._method.answers(images)
        return (*logits, *(() if tasks is None else (tasks,)))


@overload
def export(run: Place, task: str, *, format: Format = "onnx", out: Place | None = None) -> Exported: ...


@overload
def export(  # ty: ignore[inconsistent-overload-implementation]
    run: Place, task: None = None, *, bundle: Place, environment: Environment | None = None, **options: Unpack[EnvironmentOptions]
) -> ExportedBundle: ...


@checked
def export(
    run: Place,
    task: str | None = None,
    *,
    format: Format = "onnx",
    out: Place | None = None,
    bundle: Place | None = None,
    environment: Environment | None = None,
    **options: Unpack[EnvironmentOptions],
) -> Exported | ExportedBundle:
    """Write a task's network to a file, or all that a run has learned to a folder, and check that it answers as the run does.

    The network of a task maps uint8 RGB images of shape (N, 3, S, S), for any N, to logits of shape (N, classes). A bundle predicts as the
    run's `Learner` does, without PyTorch: see `lifelong.runtime`.

    Args:
        run: run directory.
        task: name of a learned task; or give `bundle`.
        format: "onnx", or "torch" for a program that `torch.export.load` reads.
        out: output file; by default ``RUN/exports/TASK.onnx`` or ``.pt2``.
        bundle: output folder for all tasks; new, empty, or an earlier bundle, which is replaced.
        environment: for a bundle: where the test images are, and the weights of the feature extractor, if the run needs one.
        options: fields of the `Environment`; they override those of `environment`.

    Returns:
        "file", "task", "classes" in the order of the logits, "image_size", "largest_difference" from the method's logits, and "notes". Of a
        bundle "folder", "tasks" with their classes, "models", "bytes", "recognizes" (what tells the task of an image), "images" that it
        was checked on, "test_images" among them, "largest_difference" of a probability, and "notes".

    Raises:
        LifelongError: the run or the task does not exist, the ONNX packages are missing, the network cannot be written in this
            format, or the answers differ.
    """
    if (task is None) == (bundle is None):
        raise LifelongError("export: give either a task or bundle=FOLDER")
    if bundle is not None and (out is not None or format != "onnx"):
        raise LifelongError("export: a bundle is always of ONNX files in its own folder; leave out format and out")
    place = environment_of("export", environment, options)
    with alone("export"):  # restores the random generators, which PyTorch's exporters change
        return _export_bundle(Path(run), Path(bundle), place) if bundle is not None else _export(Path(run), task or "", format, out)


@checked
def export_all(run: Place, *, format: Format = "onnx", out: Place | None = None) -> ExportedAll:
    """Write the networks of all tasks to one file, and check that it computes the method's logits.

    It maps uint8 RGB images of shape (N, 3, S, S), for any N, to an output of logits (N, classes) for every task, named after the task's
    number and name ("001-birds"). Methods on a frozen pretrained network add the output "tasks": the probability of every task, (N, tasks),
    by the nearest class means. Weights that tasks share are stored once.

    Args:
        run: run directory.
        format: see `export`.
        out: output file; by default ``RUN/exports/all-tasks.onnx`` or ``.pt2``.

    Returns:
        "file", "outputs" with the task and its classes for each output of logits, "tells_tasks", "image_size", "largest_difference" and
        "notes".

    Raises:
        LifelongError: as `export`; or the tasks have images of several sizes.
    """
    with alone("export"):
        return _export_all(Path(run), format, out)


def _export_all(run: Path, format: Format, out: Place | None) -> ExportedAll:
    saved = open_run(run)
    sizes = sorted({entry.side for entry in saved.entries})
    if len(sizes) > 1:
        raise LifelongError(f"{run}: its tasks have images of {' and '.join(map(str, sizes))} pixels; export each of them with --task NAME")
    names = [f"{index + 1:03d}-{file_name(entry.name, 'task')}" for index, entry in enumerate(saved.entries)]
    outputs: dict[str, ExportedTask] = {
        name: {"task": entry.name, "classes": list(saved.classes(index))}
        for index, (name, entry) in enumerate(zip(names, saved.entries, strict=True))
    }
    file = Path(out) if out is not None else run / "exports" / f"all-tasks{ENDINGS[format]}"
    if out is None:
        refuse_links(run, ("exports",))
    about = {"outputs": json.dumps(outputs), "image_size": str(sizes[0])}
    network = AllTasks(saved.method).eval()
    tells_tasks = saved.method.answers(torch.zeros(1, 3, sizes[0], sizes[0], dtype=torch.uint8))[1] is not None
    difference = _written(network, file, format, sizes[0], about, [*names, *(["tasks"] if tells_tasks else [])], "all tasks")
    return {
        "file": str(file),
        "outputs": outputs,
        "tells_tasks": tells_tasks,
        "image_size": sizes[0],
        "largest_difference": difference,
        "notes": list(saved.notes),
    }


def _export_bundle(run: Path, bundle: Path, place: Environment) -> ExportedBundle:
    _import_onnx()
    saved = open_run(run)
    saved.check_weights(place.weights)
    saved.method.attach_extractor(extractor_opener(place, torch.device("cpu")))
    learner = Predictor(saved, place, torch.device("cpu"))
    done: list[Checked] = []

    def fill(folder: Path) -> None:
        about = write_models(folder, saved)
        write_description(folder, about)
        done.append(check_bundle(Bundle(folder), learner, saved, place))
        about["checked"] = asdict(done[0])
        write_description(folder, about)
        write_runtime(folder)

    in_place(bundle, fill)
    (checked_on,) = done
    kept = read_description(bundle)
    notes = list(saved.notes)
    if checked_on.of_tests < checked_on.images:
        notes.append(f"{checked_on.images - checked_on.of_tests} of the {checked_on.images} images of the check are random: see --data")
    return {
        "folder": str(bundle),
        "tasks": {task.name: list(task.classes) for task in kept.tasks},
        "models": len(kept.models),
        "bytes": sum(file.stat().st_size for file in bundle.iterdir()),
        "recognizes": list(kept.recognizes),
        "images": checked_on.images,
        "test_images": checked_on.of_tests,
        "largest_difference": checked_on.largest_difference,
        "notes": notes,
    }


def _export(run: Path, task: str, format: Format, out: Place | None) -> Exported:
    saved = open_run(run)
    index = saved.task_index(task)
    entry = saved.entries[index]
    size = entry.side
    network = TaskNetwork(saved.method, index).eval()
    file = Path(out) if out is not None else run / "exports" / f"{index + 1:03d}-{file_name(task, 'task')}{ENDINGS[format]}"
    if out is None:
        refuse_links(run, ("exports",))
    about = {"task": task, "classes": json.dumps(list(saved.classes(index))), "image_size": str(size)}
    difference = _written(network, file, format, size, about, ["logits"], f"task '{task}'")
    return {
        "file": str(file),
        "task": task,
        "classes": list(saved.classes(index)),
        "image_size": size,
        "largest_difference": difference,
        "notes": list(saved.notes),
    }


def _written(network: nn.Module, file: Path, format: Format, size: int, about: Mapping[str, str], outputs: Sequence[str], of: str) -> float:
    """Write a network to a file unless this computes something else, and return the largest difference of their outputs."""
    probe = torch.randint(0, 256, (PROBES, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    # PyTorch's exporters warn about their own internals.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = _listed(network(probe))
        program = _traced(network, probe[:2], of)
        largest = 0.0

        def write(part: Path) -> None:
            # A file that differs from the run is not kept, and does not replace an earlier one.
            nonlocal largest
            through = _through_torch if format == "torch" else _through_onnx
            for found, right in zip(through(program, part, probe, about, outputs), wanted, strict=True):
                difference = (found - right).abs().max().item()
                if not difference <= TOLERANCE * max(1.0, right.abs().max().item()):
                    raise LifelongError(f"{file}: its logits differ from the run's by {difference:.2g}; the file was not kept")
                largest = max(largest, difference)

        write_file(file, write)
    return largest


def _listed(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _traced(network: nn.Module, images: UInt8[Tensor, "n 3 h w"], of: str) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},), strict=False)
    except Exception as error:  # the tracer fails in many ways
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LifelongError(f"the network of {of} cannot be exported: {reason}") from error


def _through_torch(
    program: torch.export.ExportedProgram, file: Path, images: UInt8[Tensor, "n 3 h w"], about: Mapping[str, str], outputs: Sequence[str]
) -> list[Tensor]:
    """Write the file with its description in `extra_files`, and return its outputs, which have no names."""
    with file.open("wb") as written:
        torch.export.save(program, written, extra_files=dict(about))
    with file.open("rb") as kept:
        return _listed(torch.export.load(kept).module()(images))


def _through_onnx(
    program: torch.export.ExportedProgram, file: Path, images: UInt8[Tensor, "n 3 h w"], about: Mapping[str, str], outputs: Sequence[str]
) -> list[Tensor]:
    """Write the file with its description as metadata, and return the outputs of ONNX Runtime."""
    runtime = _import_onnx()
    # Suppress notes on operators of packages that are not installed, which no network here uses.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    made = torch.onnx.export(program, input_names=["images"], output_names=list(outputs), external_data=False, verbose=False)
    assert made is not None
    made.model.metadata_props.update(about)
    graph = made.model.graph
    for value in (*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)):
        if value.shape and not isinstance(value.shape[0], int):
            value.shape[0] = BATCH_AXIS  # The tracer numbers it, such as "s34".
    made.save(file)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(found) for found in session.run(None, {"images": images.numpy()})]


# `Any`: the module, which need not be installed.
def _import_onnx() -> Any:
    require_extra("onnx", ("onnx", "onnxruntime", "onnxscript"), "ONNX", "or use --format torch")
    import onnxruntime

    return onnxruntime
