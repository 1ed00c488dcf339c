"""Checks of a method's saved state before it is used, and of the method that was loaded from it.

A damaged or hand-written state is rejected here; `tests/experiment/test_states.py` corrupts values of every method's state.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lifelong.methods.form import MisfitError, hold_tree, same_form
from lifelong.methods.forms import FORMS, form_of_state
from lifelong.methods.importance import shared_parameters
from lifelong.methods.method import Method
from lifelong.networks.copies import Loading
from lifelong.storage import Tree
from lifelong.trees import known_by

EACH_TASK = {
    *("heads", "backbones", "image_sizes", "networks", "paths", "columns", "gate", "gates", "widths", "similar", "attends"),
    *("bank", "recognition", "scales", "learned"),
}
"""Parts with an entry for every task."""

MASKED = ".parametrizations.weight.original"
"""What a masked weight is called, after the name of its layer."""


class Recorded(NamedTuple):
    """What a run's record says of a task: its name, its number of classes, and height and width of its images in pixels."""

    name: str
    classes: int
    image_size: int


def check_form(name: str, state: Tree) -> None:
    """Check that the state of a built-in method matches its form.

    Args:
        name: of the method; other methods than the built-in ones pass.
        state: what `Method.state_dict` gave.

    Raises:
        MisfitError: it does not match.
    """
    if name not in FORMS:
        return
    hold_tree(form_of_state(name, state), state, "method")
    tasks = len(state["tasks"])
    # MNTDP's paths end at heads that tasks may share.
    of_paths = name in ("mntdp-d", "mntdp-s")
    for key in (EACH_TASK - {"heads"} if of_paths else EACH_TASK) & state.keys():
        _require(len(state[key]) == tasks, f"method/{key}: {len(state[key])} for {tasks} tasks")
    if of_paths:
        used = sorted({path[-1] for path in state["paths"] if path})
        _require(used == list(range(len(state["heads"]))), f"method/paths: they end at heads {used} of {len(state['heads'])}")
    if "kept" in state:
        _require(len(state["kept"]) == len(state["experts"]), f"method/kept: {len(state['kept'])} for {len(state['experts'])} experts")
    if "kept" in state.get("relatedness", {}):
        kept = len(state["relatedness"]["kept"])
        # None where nothing is measured: with a variant of one expert for each task, say.
        _require(kept in (0, tasks), f"method/relatedness/kept: {kept} for {tasks} tasks")
    for key in ("store", "train", "valid"):
        _check_kept(key, state.get(key, []), state["tasks"])
    if state.get("quadratic") is not None:
        importance, anchor = state["quadratic"].values()
        _require(len(importance) == len(anchor), f"method/quadratic: {len(importance)} weights of {len(anchor)}")
    if "bank" in state:
        _check_pretrained(state, state["tasks"])
    if "relatedness" in state:
        _check_relatedness(state["relatedness"], state["tasks"])
    for at, widths in enumerate(state.get("widths", [])):
        fits = len(widths) == len(state["library"]) and all(w <= len(pool) for w, pool in zip(widths, state["library"], strict=True))
        _require(fits, f"method/widths/{at}: {widths} of the modules there are")
    for at, one in enumerate(state.get("learned", [])):
        where, earlier = f"method/learned/{at}", one["earlier"]
        _require(all(place < at for place in earlier), f"{where}: it reads tasks {earlier}, which are not earlier")
        _require((one["related"] is None) == (not earlier), f"{where}: not what reads tasks {earlier}")
    for at, earlier in enumerate(state.get("similar", [])):
        _require(all(one < at for one in earlier), f"method/similar/{at}: task {at} is similar to earlier ones alone, not to {earlier}")


def check_loaded(method: Method, state: Tree, recorded: Sequence[Recorded], loaded: Loading) -> None:
    """Check that a loaded method equals what was stored, and answers for each task.

    Args:
        method: on its device.
        state: what it was loaded from.
        recorded: of its tasks.
        loaded: knows modules that were made of what was stored.

    Raises:
        MisfitError: it differs, or answers for other tasks or classes.
    """
    _require(len(method.tasks) == len(recorded), f"method/tasks: {len(method.tasks)} for the {len(recorded)} tasks of the run")
    if method.name in FORMS:
        with known_by(loaded.serial):
            again = method.state_dict()
        same_form(state, again, "method", loaded.is_of)
        _check_learning(method, state)
    tried = set()
    for index, (name, classes, size) in enumerate(recorded):
        task = method.tasks[index]
        known = (task.name, task.classes) == (name, classes)
        _require(known, f"method/tasks/{index}: '{task.name}' of {task.classes} classes, not '{name}' of {classes}")
        form = method.form_of(index)
        if form is not None and (form, classes, size) in tried:
            continue
        tried.add((form, classes, size))
        parameter = next((p for module in method.modules(index) for p in module.parameters()), None)
        device = "cpu" if parameter is None else parameter.device
        answer = method.logits(torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device), index)
        _require(
            tuple(answer.shape) == (1, classes), f"method: answers of shape {tuple(answer.shape)} for task {index} of {classes} classes"
        )


def _check_learning(method: Method, state: Tree) -> None:
    """Check what is used for learning but not for answers."""
    backbone = getattr(method, "backbone", None)
    if backbone is None:
        return
    weights = dict(backbone.named_parameters())
    for name, basis in state.get("bases", {}).items():
        rows = weights[f"{name}.weight"][0].numel() if f"{name}.weight" in weights else None
        _require(basis.shape[0] == rows, f"method/bases/{name}: {basis.shape[0]} rows, expected {rows}")
    if state.get("scores"):
        masked = {name.removesuffix(MASKED): weight.shape for name, weight in weights.items() if name.endswith(MASKED)}
        shapes = {name: scores.shape for name, scores in state["scores"].items()}
        wrong = next((name for name in masked | shapes if masked.get(name) != shapes.get(name)), None)
        _require(wrong is None, f"method/scores/{wrong}: not the scores of a masked weight")
    if state.get("quadratic") is not None:
        shared = sum(parameter.numel() for parameter in shared_parameters(backbone).values())
        for name, tensor in state["quadratic"].items():
            _require(len(tensor) == shared, f"method/quadratic/{name}: {len(tensor)} numbers for {shared} shared weights")


def _check_kept(key: str, kept: Sequence[Tree], tasks: Sequence[Tree]) -> None:
    """Check kept images, task by task."""
    _require(len(kept) in (0, len(tasks)), f"method/{key}: images of {len(kept)} of {len(tasks)} tasks")
    for place, (part, task) in enumerate(zip(kept, tasks, strict=False)):
        images, labels, classes = part["images"], part["labels"], task["classes"]
        _require(part["augmentation"]["crop"] <= images.shape[-1], f"method/{key}/{place}: crops of more than an image")
        _require(len(images) == len(labels), f"method/{key}/{place}: {len(labels)} labels of {len(images)} images")
        within = not len(labels) or bool((labels >= 0).all() and (labels < classes).all())
        _require(within, f"method/{key}/{place}: labels of other classes than the task's {classes}")


def _check_relatedness(state: Tree, tasks: Sequence[Tree]) -> None:
    """Check groups, prototypes and spreads."""
    groups, bank, spreads = state["groups"], state["bank"], state["recognition"]
    members = sorted(member for group in groups["members"] for member in group)
    _require(members == list(range(len(tasks))), f"method/relatedness/groups: they hold tasks {members} of {len(tasks)}")
    _require(len(groups["largest"]) == len(groups["members"]), "method/relatedness/groups: not one size for each")
    for key, held in (("bank", bank), ("recognition", spreads)):
        _require(len(held) in (0, len(tasks)), f"method/relatedness/{key}: {len(held)} for {len(tasks)} tasks")
    _check_bank("method/relatedness/bank", bank)


def _check_bank(where: str, bank: Sequence[Tree]) -> None:
    """Check prototypes."""
    _require(len({prototypes["means"].shape[1] for prototypes in bank}) <= 1, f"{where}: features of several lengths")
    for place, prototypes in enumerate(bank):
        counts, means = prototypes["counts"], prototypes["means"]
        _require(len(counts) == len(means) and bool((counts >= 0).all()), f"{where}/{place}: not a count for each class")


def _check_pretrained(state: Tree, tasks: Sequence[Tree]) -> None:
    """Check the class means of frozen features, and the statistics that all tasks share."""
    _require((state["network"] is None) == (not tasks), "method/network: not there for tasks that were learned, or there for none")
    _check_bank("method/bank", state["bank"])
    for place, (prototypes, task) in enumerate(zip(state["bank"], tasks, strict=True)):
        _require(len(prototypes["means"]) == task["classes"], f"method/bank/{place}: means of {len(prototypes['means'])} classes")
    if "gram" in state:
        size = len(state["gram"])
        shapes = [(len(moments), moments.shape[1]) for moments in state.get("moments", [])]
        _require(state["gram"].shape[1] == size, "method/gram: not square")
        _require(shapes == [(size, task["classes"]) for task in tasks], "method/moments: not one for each class")
    given = {"whitening", "scatter", "degrees"} & state.keys()
    _require(len(given) in (0, 3), f"method: {' and '.join(sorted(given))} without the rest of a common covariance")
    if given:
        sizes = {*state["scatter"].shape, *(prototypes["means"].shape[1] for prototypes in state["bank"])}
        _require(len(sizes) == 1, "method/scatter: of features of another length")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise MisfitError(message)
