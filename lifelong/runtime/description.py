"""What stands in the JSON of a bundle, and its check: a bundle may come from a stranger."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.digests import fits
from lifelong.errors import LifelongError
from lifelong.opening import read_json

NAME = "bundle.json"
FORMATS = (1, 2)
"""The versions of the format; a reader refuses any other. In the second, models may take the normalization of a task."""

NORMALIZATION = "normalization"
"""The input for it."""

MOST_BYTES = 64 * 2**20
"""Bytes of a description: a hundred thousand names of classes have about two million."""

LARGEST_SIDE = 4096

SHAPE = {
    "format": int,
    "lifelong": str,
    "run": {"digest": str, "method": str},
    "together": bool,
    "models": [{"sha256": str, "inputs": [str], "gives": [str]}],
    "recognizes": [str],
    "strange_above": float,
    "tasks": [
        {
            "name": str,
            "classes": [str],
            "image_size": int,
            "normalization": {"mean": [float], "std": [float]},
            "limit": (float, None),
            "model": int,
            "output": str,
        }
    ],
}
"""The keys that a description must have, with the kinds of their values; a tuple lists alternatives. It may have more."""


@dataclass(frozen=True)
class Model:
    """An ONNX file: its name follows from its position, so that no name in a description is ever a path.

    Attributes:
        sha256: of the file.
        inputs: what it takes: images of a size ("images_64"), "normalization", and what the first model gives.
        gives: what it gives to other models.
    """

    sha256: str
    inputs: tuple[str, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True)
class TaskAnswer:
    """What answers for a task.

    Attributes:
        name, classes: as they were learned; classes in the order of the logits.
        image_size: height and width in pixels.
        model: position of the model that computes its logits.
        output: name of its logits.
        mean, std: of each channel, of pixels in 0..1.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    model: int
    output: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Description:
    """What a bundle is.

    Attributes:
        models: its ONNX files.
        tasks: in the order of learning.
        recognizes: which of "tasks" and "strangeness" the first model gives.
        strange_above: strangeness above which an image is unlike anything learned.
        together: whether the images of a call are looked at together.
    """

    models: tuple[Model, ...]
    tasks: tuple[TaskAnswer, ...]
    recognizes: tuple[str, ...]
    strange_above: float
    together: bool


def model_file(position: int) -> str:
    """Return the name of the model at a position, from 0."""
    return f"model-{position + 1:03d}.onnx"


def read_description(folder: Path) -> Description:
    """Read the JSON of a bundle.

    Raises:
        LifelongError: it is missing, damaged, of another format, or does not describe a bundle.
    """
    file = folder / NAME
    again = "export the bundle again"
    try:
        found = read_json(file, MOST_BYTES)
    except OSError as error:
        raise LifelongError(f"{file}: {error.strerror}; give a folder written by lifelong export RUN --bundle") from error
    except ValueError as error:
        raise LifelongError(f"{file}: not valid JSON ({error}); {again}") from error
    if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise LifelongError(f"{file}: of format {found['format']}, and this version reads {known}; use the lifelong that wrote it")
    if wrong := mismatch(found, SHAPE):
        raise LifelongError(f"{file}: {wrong}; {again}")
    if not fits(found):
        raise LifelongError(f"{file}: does not match its digest, so it was changed or damaged; {again}")
    if wrong := _contradiction(found):
        raise LifelongError(f"{file}: {wrong}; {again}")
    return Description(
        tuple(Model(model["sha256"], tuple(model["inputs"]), tuple(model["gives"])) for model in found["models"]),
        tuple(
            TaskAnswer(
                task["name"],
                tuple(task["classes"]),
                task["image_size"],
                task["model"],
                task["output"],
                *(tuple(task["normalization"][key]) for key in ("mean", "std")),
            )
            for task in found["tasks"]
        ),
        tuple(found["recognizes"]),
        float(found["strange_above"]),
        found["together"],
    )


# `Any`: whatever JSON can say, and the kinds that it should have.
def mismatch(value: Any, shape: Any, where: str = "") -> str:
    """Return where a value first differs from a shape, in words; empty if it fits."""
    if isinstance(shape, tuple):
        found = [mismatch(value, one, where) for one in shape]
        return "" if "" in found else found[0]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"'{where or 'it'}' is not an object"
        inside = (
            mismatch(value[key], inner, f"{where}{key}.") if key in value else f"'{where}{key}' is missing" for key, inner in shape.items()
        )
        return next(filter(None, inside), "")
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"'{where.rstrip('.')}' is not a list"
        inside = (mismatch(item, shape[0], f"{where}{number}.") for number, item in enumerate(value))
        return next(filter(None, inside), "")
    kinds = {None: type(None), float: (int, float)}.get(shape, shape)
    fitting = isinstance(value, kinds) and (shape is bool or not isinstance(value, bool))
    return "" if fitting else f"'{where.rstrip('.')}' is not {'null' if shape is None else f'of type {shape.__name__}'}"


def _contradiction(found: dict[str, Any]) -> str:
    """Return what in a description cannot be, in words; empty if nothing."""
    names = [task["name"] for task in found["tasks"]]
    if not names or len({*names}) < len(names):
        return "it has no tasks" if not names else "two tasks have one name"
    if {*found["recognizes"]} - {"tasks", "strangeness"}:
        return "'recognizes' knows only tasks and strangeness"
    if found["recognizes"] and not found["models"]:
        return "it has no models"
    images = {f"images_{task['image_size']}" for task in found["tasks"]}
    for number, model in enumerate(found["models"]):
        if unknown := {*model["inputs"]} - images - {NORMALIZATION} - {*(found["models"][0]["gives"] if number else ())}:
            return f"model {number + 1} takes '{min(unknown)}', which nothing gives"
    for task in found["tasks"]:
        if not 0 <= task["model"] < len(found["models"]):
            return f"task '{task['name']}' has no model"
        if not 1 <= task["image_size"] <= LARGEST_SIDE:
            return f"task '{task['name']}' has images of {task['image_size']} pixels"
        if {len(task["normalization"][key]) for key in ("mean", "std")} != {3} or 0 in task["normalization"]["std"]:
            return f"task '{task['name']}' has no normalization of three channels"
        if not task["classes"] or len({*task["classes"]}) < len(task["classes"]):
            return f"task '{task['name']}' has no classes, or two of one name"
    return ""
