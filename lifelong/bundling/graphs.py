"""The networks of a method as ONNX graphs: what tasks share is in one graph, once, and what recognizes tasks is computed first.

A bundle has one graph for all tasks that share a parameter, so that shared parts are stored once, and for tasks that share none a graph
each, which is opened when the first image needs it. What recognizes the task of an image is a graph of its own. If it computes what the
logits need as well (the features of a frozen network), the graph of the logits begins with its results instead of computing them again.
"""

import logging
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.errors import LifelongError
from lifelong.experiment.task_agnostic import Shown, recognize
from lifelong.methods.method import Method
from lifelong.networks.chosen import ChoosesTask

BATCH = "n"
"""Name of the batch dimension."""

TASKS, STRANGENESS = "tasks", "strangeness"
"""Names of what recognizes: the probability of each task (n, t), and how unlike everything learned an image is (n,)."""


NORMALIZATION = "normalization"
"""Name of an input: scale and shift of each channel, of shape (2, 3). Tasks that share a network, but not their normalization, are computed
by one copy of it, which is told the normalization of the task that is asked about."""

FOLDED = 1024
"""The most numbers of a constant that is computed from others when the graph is made."""

LARGEST = 2**31 - 2**20
"""Bytes of a graph: a protocol buffer cannot have more than 2 GB."""


def input_name(size: int) -> str:
    """Return the name of the input of images of a size."""
    return f"images_{size}"


def output_name(task_index: int) -> str:
    """Return the name of the logits of a task."""
    return f"logits_{task_index + 1:03d}"


@dataclass(frozen=True)
class Graph:
    """An ONNX graph, as a protocol buffer.

    Attributes:
        model: the `onnx.ModelProto`.
        tasks: the tasks whose logits it gives.
        recognizes: the names of its outputs that recognize tasks.
        gives: the names of its outputs that other graphs take, or that are logits already.
    """

    model: Any
    tasks: tuple[int, ...] = ()
    recognizes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()

    @property
    def inputs(self) -> list[str]:
        """Return the names of its inputs."""
        return [value.name for value in self.model.graph.input]


class Asked(nn.Module):
    """What is asked of a method in one graph.

    Args:
        method: has learned all tasks.
        sizes: the image size of each task.
        tasks: whose logits are wanted.
        recognizing: whether tasks are recognized as well.

    Attributes:
        sizes: the image sizes that it takes.
        told: whether it takes the normalization of the task that is asked about.
    """

    def __init__(self, method: Method, sizes: Sequence[int], tasks: Sequence[int], *, recognizing: bool) -> None:
        super().__init__()
        distinct = {id(module): module for task in tasks for module in method.modules(task)}
        self.parts = nn.ModuleList(distinct.values())
        self._method, self._all_sizes, self._tasks, self._recognizing = method, tuple(sizes), tuple(tasks), recognizing
        # To recognize a task, all tasks look at an image.
        self.sizes = tuple(sorted(set(sizes) if recognizing else {sizes[task] for task in tasks}))
        own = type(method).answers is not Method.answers  # it knows itself what its tasks have in common
        self.told = not recognizing and not own and len({method.tasks[task].normalization for task in tasks}) > 1

    @property
    def inputs(self) -> list[str]:
        """Return the names of its inputs."""
        return [*map(input_name, self.sizes), *([NORMALIZATION] if self.told else [])]

    def forward(self, images: tuple[Tensor, ...], factors: Float[Tensor, "2 3"] | None = None) -> tuple[Tensor, ...]:
        """Compute what recognizes, and then the logits of each task, from the images in each of `sizes`.

        Args:
            images: uint8 RGB.
            factors: scale and shift of the task that is asked about, if it is `told`; the logits of others are then of no use.
        """
        views = dict(zip(self.sizes, images, strict=True))
        found: list[Tensor | None] = []
        if self._recognizing:
            told = recognize(self._method, Shown(views, self._all_sizes), "method")
            found += told.probabilities, told.strangeness
        logits: dict[int, Tensor] = {}
        for size, view in views.items():
            wanted = [task for task in self._tasks if self._all_sizes[task] == size]
            logits |= zip(wanted, _logits(self._method, view, wanted, factors, beside=self._recognizing), strict=True)
        # Tasks may have all of their network in common: one value cannot have two names.
        outputs = [output for output in (*found, *(logits[task] for task in self._tasks)) if output is not None]
        return tuple(one.clone() if any(one is other for other in outputs[:place]) else one for place, one in enumerate(outputs))


def _logits(method: Method, images: Tensor, tasks: Sequence[int], factors: Tensor | None, *, beside: bool) -> list[Float[Tensor, "n _c"]]:
    """Compute the logits of tasks; `beside` what recognizes them, with which they may have computations in common."""
    if not tasks:
        return []
    with _computed_once([module for task in tasks for module in method.modules(task)]):
        if factors is not None:
            scale, shift = factors[:, :, None, None]  # each (3, 1, 1)
            prepared = torch.addcmul(shift, images.to(scale.dtype), scale)
            return [method.predict(prepared, task) for task in tasks]
        # Alone, a task would normalize the images, and a frozen network undo that: not the computation that recognizes.
        if beside or len(tasks) > 1:
            return method.answers(images, tasks)[0]
        (task,) = tasks
        return [method.predict(normalize(images, method.tasks[task].normalization), task)]


@contextmanager
def _computed_once(modules: Sequence[nn.Module]) -> Generator[None]:
    """Let each module compute its answer to the same tensor once, unless the answer depends on the task that is asked about."""
    plain = {id(module): module for module in modules if not any(isinstance(part, ChoosesTask) for part in module.modules())}
    for module in plain.values():
        module.forward = _once(module.forward)
    try:
        yield
    finally:
        for module in plain.values():
            del module.forward


def _once(forward: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[int, tuple[Tensor, Any]] = {}

    def compute(*inputs: Any) -> Any:
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            return forward(*inputs)
        (given,) = inputs
        if id(given) not in known:
            # The tensor is kept with its answer, so that no other one gets its number.
            known[id(given)] = given, forward(given)
        return known[id(given)][1]

    return compute


def parts_of(method: Method) -> list[tuple[int, ...]]:
    """Divide the tasks into those that share modules, parameters or buffers, directly or through others."""
    groups: list[tuple[set[int], list[int]]] = []
    for task in range(len(method.tasks)):
        held = {id(part) for module in method.modules(task) for part in (module, *module.parameters(), *module.buffers())}
        tasks = [task]
        for group in [group for group in groups if group[0] & held]:
            groups.remove(group)
            held, tasks = held | group[0], group[1] + tasks
        groups.append((held, tasks))
    return sorted(tuple(sorted(tasks)) for _, tasks in groups)


def graphs_of(method: Method, sizes: Sequence[int]) -> list[Graph]:
    """Make the graphs of a method; the one that recognizes tasks, if it can, is the first.

    Args:
        method: has learned a task at least; its extractor, if it has one, is attached.
        sizes: the image size of each task.

    Raises:
        LifelongError: a network cannot be written as ONNX.
    """
    parts = parts_of(method)
    looked = recognize(
        method, Shown({size: torch.zeros(1, 3, size, size, dtype=torch.uint8) for size in set(sizes)}, tuple(sizes)), "method"
    )
    names = tuple(name for name, found in ((TASKS, looked.probabilities), (STRANGENESS, looked.strangeness)) if found is not None)
    together = len(parts) == 1 and bool(names)
    graphs: list[Graph] = []
    if names and not together:
        graphs.append(Graph(_made(Asked(method, sizes, (), recognizing=True), names, "what recognizes tasks"), (), names))
    for tasks in parts:
        of = f"task '{method.tasks[tasks[0]].name}'" + (f" and {len(tasks) - 1} more" if len(tasks) > 1 else "")
        outputs = [*(names if together else ()), *map(output_name, tasks)]
        model = _made(Asked(method, sizes, tasks, recognizing=together), outputs, of)
        if together and not method.batch_dependent:
            graphs += divided(model, names, tasks)
        else:
            # The logits for some images of a batch then depend on these alone: they are computed from the images again.
            graphs.append(Graph(model, tasks, names if together else ()))
    return graphs


def _made(network: Asked, outputs: Sequence[str], of: str) -> Any:
    """Trace a network, and return it as an ONNX model."""
    import onnx
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, DeduplicateInitializersPass
    from onnxscript import optimizer

    network.eval()
    images = tuple(torch.zeros(2, 3, size, size, dtype=torch.uint8) for size in network.sizes)
    batch = torch.export.Dim("n", min=1)
    shown = (images, torch.ones(2, 3)) if network.told else (images,)
    shapes = (tuple({0: batch} for _ in images), *([{}] if network.told else []))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch's exporters warn about their own internals, and so does NumPy, which computes constants for them.
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(network, shown, dynamic_shapes=shapes, strict=False)
            made = torch.onnx.export(
                program, input_names=network.inputs, output_names=list(outputs), external_data=False, verbose=False, optimize=False
            )
        except Exception as error:  # the tracer fails in many ways
            raise LifelongError(f"the network of {of} cannot be exported: {_reason(error)}") from error
        assert made is not None
        # What is no module of the method, such as a feature extractor, is traced as constants, each time that it is used.
        DeduplicateInitializersPass(size_limit=LARGEST)(made.model)
        # Equal computations become one: the features that several tasks, or recognition and logits, begin with. Only small constants are
        # computed now: the weights that remain of a mask would take 32 times the bits of the mask.
        optimizer.optimize(made.model, input_size_limit=FOLDED, output_size_limit=FOLDED)
    ClearMetadataAndDocStringPass()(made.model)  # of each operator, the code that it was traced from
    model = made.model_proto
    _name_batch(model)
    onnx.checker.check_model(model)
    return model


def _reason(error: BaseException) -> str:
    """Return the first line of what caused an error in the beginning: PyTorch wraps the operator that it lacks in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _name_batch(model: Any) -> None:
    """Give the batch dimension its name, where the tracer has numbered it."""
    numbered = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == numbered:
                dim.dim_param = BATCH


def divided(model: Any, names: tuple[str, ...], tasks: tuple[int, ...]) -> list[Graph]:
    """Divide a graph into what recognizes tasks, and what computes the logits from there.

    Args:
        model: an `onnx.ModelProto` whose first outputs recognize.
        names: of these outputs.
        tasks: whose logits are its other outputs.
    """
    from onnx.utils import Extractor

    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    early = _ancestors(made_by, names, set())
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.output)}
    batched = {name for name in early if name in shapes and shapes[name] and shapes[name][0].dim_param == BATCH}
    logits = [output_name(task) for task in tasks]
    given = sorted(batched & _ancestors(made_by, logits, batched))
    late = [name for name in logits if name not in given]
    images = [value.name for value in graph.input]
    extractor = Extractor(model)
    recognizing = _kept(extractor.extract_model(images, [*names, *given]))
    first = Graph(recognizing, tuple(task for task in tasks if output_name(task) in given), names, tuple(given))
    if not late:
        return [first]
    taken = [name for name in given if name not in logits]
    second = _kept(extractor.extract_model([*images, *taken], late))
    return [first, Graph(second, tuple(task for task in tasks if output_name(task) in late))]


def _ancestors(made_by: dict[str, Any], names: Sequence[str], stop: set[str]) -> set[str]:
    """Return the values that some values are computed from, themselves included; none behind a value of `stop`."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if not name or name in found:
            continue
        found.add(name)
        if name not in stop and name in made_by:
            waiting += made_by[name].input
    return found


def _kept(model: Any) -> Any:
    """Drop the inputs that nothing reads."""
    read = {name for node in model.graph.node for name in node.input}
    unread = [value for value in model.graph.input if value.name not in read]
    for value in unread:
        model.graph.input.remove(value)
    return model
