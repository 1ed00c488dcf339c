"""`check_method`: whether a method, including a third party's, keeps the contract of `lifelong.methods.method`."""

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from lifelong.data.task import Augmentation, Split, Task, alive
from lifelong.errors import ConformanceError, LifelongError
from lifelong.methods.frozen_network import FrozenNetwork
from lifelong.methods.method import Context, LearnRecord, Method, count_parameters
from lifelong.networks.library import ModuleLibrary
from lifelong.relatedness.extractor import Extractor, open_extractor
from lifelong.settings.arguments import checked
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree, load_tree, save_tree
from lifelong.training.process import alone
from lifelong.training.stages import Epoch
from lifelong.trees import tensors_of
from lifelong.watch import kept_tensors

CLASSES = (3, 2, 4)
"""Classes of the tasks that a method is tried on: heads must grow to different sizes."""

THREADS, SWITCH = 3, 1e-4
"""Number of threads that query a method at once, and the switch interval in seconds: short enough to switch within a forward pass."""

PROBE = 5
"""Images whose logits are compared."""

TRAINING = TrainingSettings(epochs=3, batch_size=8, lr=0.05)
"""How a method is trained, if nothing else is said."""


# `Any`, not a callable: what cannot be called gets a message of its own.
@checked
def check_method(make: Any, *, training: TrainingSettings | None = None, images: Annotated[int, Ge(1)] = 8) -> None:
    """Try a method on three small synthetic tasks, twice and with interruptions.

    Checked: construction learns nothing; a head of the right size per task; no image of a task is kept or needed after it;
    parameters counted are parameters held; probabilities of tasks, if there are any, sum to 1; no answer depends on the images that are
    asked about together, unless the method says so, nor on what other threads ask at the same time;
    the state survives a file with equal logits, equal counts and an equal next task;
    the same seed gives the same result; an interrupted `learn` continues to the same bits; a task that the method calls forgettable
    leaves no weight behind when it is forgotten, and changes no other answer.

    Args:
        make: a function that gives a fresh method, small enough to learn a task of 24 images of 8 x 8 pixels in a second or two.
        training: how it is trained; by default 3 epochs in batches of 8, augmented.
        images: training images per class.

    Raises:
        ConformanceError: what is broken, and at which task.
        LifelongError: `make` makes no method.
    """
    if isinstance(make, Method) or not callable(make):
        raise LifelongError(f"check_method: {make!r}: give a function that makes a fresh method, such as lambda: Mine(settings)")
    with alone("check_method"):
        _check(make, training, images)


def _check(make: Callable[[], Method], training: TrainingSettings | None, images: int) -> None:
    trial = _Trial(make, training or TRAINING, images)
    straight = trial.run()
    _same(straight, trial.run(), "the same seed gave another result")
    _same(straight, trial.run(through_files=True), "the state does not survive a file: later results differ")
    _same(straight, trial.run(interrupted=True), "an interrupted and resumed `learn` gave another result")
    trial.check_forgetting()


class _InterruptionError(Exception):
    pass


class _Trial:
    """A trial on the synthetic tasks."""

    def __init__(self, make: Callable[[], Method], training: TrainingSettings, images: int) -> None:
        self.make, self.training, self.images = make, training, images

    def run(self, *, through_files: bool = False, interrupted: bool = False) -> Tree:
        """Return the state and all logits after each task."""
        method = self._made()
        _require(not method.tasks, "a fresh method knows tasks already")
        results = []
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            for index in range(len(CLASSES)):
                if interrupted:
                    # The interrupted object may be in any state: continue from the state before.
                    before = method.state_dict()
                    save_tree(place / "before", before)
                    self._interrupt(method, index, place / "stages")
                    method = self._restored(place / "before")
                _learn(method, made_task(index, self.images), self._context(index, place / "stages" if interrupted else None))
                self._inspect(method, index)
                if through_files:
                    save_tree(place / "state", method.state_dict())
                    restored = self._restored(place / "state")
                    _same(_answers(method), _answers(restored), f"task {index}: logits differ after a round trip through a file")
                    tasks = (method.task_probabilities(_images()), restored.task_probabilities(_images()))
                    _same(*tasks, f"task {index}: probabilities of tasks differ after a round trip through a file")
                    strangeness = (method.strangeness(_images()), restored.strangeness(_images()))
                    _same(*strangeness, f"task {index}: strangeness differs after a round trip through a file")
                    _require(restored.num_parameters() == method.num_parameters(), "a restored method counts other parameters")
                    _require(restored.memory() == method.memory(), "a restored method counts another memory")
                    method = restored
                probabilities = method.task_probabilities(_images())
                results.append({"state": method.state_dict(), "logits": _answers(method), "probabilities": probabilities})
                # A later task may change the tensors in place.
                save_tree(place / "result", results[-1])
                results[-1] = load_tree(place / "result")
        return results

    def check_forgetting(self) -> None:
        """See that a task which the method calls forgettable leaves nothing behind, and changes no answer for another task."""
        whole = self._made()
        if type(whole).forgettable is Method.forgettable:
            return
        with tempfile.TemporaryDirectory() as folder:
            for index in range(len(CLASSES)):
                _learn(whole, made_task(index, self.images), self._context(index, None))
            save_tree(Path(folder) / "whole", whole.state_dict())
            for index in range(len(CLASSES)):
                method = self._restored(Path(folder) / "whole")
                if method.forgettable(index) is not None:
                    continue
                gone = _own_tensors(method, index)
                wanted = [answer for task, answer in enumerate(_answers(method)) if task != index]
                method.forget(index)
                _same(_answers(method), wanted, f"task {index}: forgetting it changes answers for other tasks")
                state = method.state_dict()
                left = any(tensor.shape == each.shape and torch.equal(tensor, each) for tensor in tensors_of(state) for each in gone)
                _require(not left, f"task {index}: forgotten, its weights are still in the state")
                save_tree(Path(folder) / "forgotten", state)
                restored = self._restored(Path(folder) / "forgotten")
                _same(_answers(restored), wanted, f"task {index}: forgotten, the state does not survive a file")
                _same(
                    restored.task_probabilities(_images()),
                    method.task_probabilities(_images()),
                    f"task {index}: forgotten, its tasks differ",
                )
                _learn(restored, made_task(index, self.images), self._context(len(CLASSES) - 1, None))

    def _made(self) -> Method:
        """Make a fresh method."""
        try:
            method = self.make()
        except TypeError as error:
            raise LifelongError(f"check_method: {self.make!r} makes no method ({error}); give lambda: Mine(settings)") from error
        if not isinstance(method, Method):
            raise LifelongError(f"check_method: {self.make!r} gives {method!r}, which is not a lifelong.Method")
        return method

    def _restored(self, path: Path) -> Method:
        method = self._made()
        method.load_state_dict(load_tree(path))
        method.attach_extractor(_open_extractor)
        return method

    def _interrupt(self, method: Method, index: int, folder: Path) -> None:
        """Learn a task until its second epoch is over, saving at every epoch's end."""

        def stop(epoch: Epoch) -> None:
            if epoch.epoch == 2:
                raise _InterruptionError

        try:
            method.learn(made_task(index, self.images), self._context(index, folder, stop))
        except _InterruptionError:
            return

    def _context(self, index: int, folder: Path | None, on_epoch: Callable[[Epoch], None] | None = None) -> Context:
        return replace(made_context(index, self.training), folder=None if folder is None else folder / str(index), on_epoch=on_epoch)

    def _inspect(self, method: Method, index: int) -> None:
        _require(len(method.tasks) == index + 1, f"task {index}: {len(method.tasks)} tasks are remembered, not {index + 1}")
        for task, answer in enumerate(_answers(method)):
            expected = (PROBE, CLASSES[task])
            _require(tuple(answer.shape) == expected, f"task {task}: logits of shape {tuple(answer.shape)}, not {expected}")
            _require(bool(answer.isfinite().all()), f"task {task}: logits that are not finite")
        probabilities = method.task_probabilities(_images())
        if probabilities is not None:
            expected = (PROBE, index + 1)
            _require(tuple(probabilities.shape) == expected, f"task {index}: probabilities of tasks of another shape than {expected}")
            total = bool((probabilities >= 0).all()) and torch.allclose(probabilities.sum(dim=1), torch.ones(PROBE), atol=1e-5)
            _require(total, f"task {index}: probabilities of tasks that do not sum to 1")
        strangeness = method.strangeness(_images())
        if strangeness is not None:
            _require(tuple(strangeness.shape) == (PROBE,), f"task {index}: strangeness of another shape than ({PROBE},)")
            _require(bool((strangeness >= 0).all()), f"task {index}: strangeness below zero")
        _same(list(method.recognize(_images())), [probabilities, strangeness], f"task {index}: `recognize` says something else")
        together = method.logits_of(_images(), range(index + 1))
        _same(together, _answers(method), f"task {index}: `logits_of` says something else than `logits`")
        if not method.batch_dependent:
            alone = [torch.cat([method.logits(image, task) for image in _images().split(1)]) for task in range(index + 1)]
            close = all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(alone, _answers(method), strict=True))
            _require(close, f"task {index}: an answer depends on the images it is asked about with, and `batch_dependent` does not say so")
        if index == len(CLASSES) - 1:
            _require(_same_answers_in_threads(method), f"task {index}: an answer differs where several threads ask at once")
        held = count_parameters(_modules(method))
        counted = method.num_parameters()
        _require(counted == held, f"task {index}: {counted} parameters counted, {held} held")
        _require(all(v >= 0 for v in method.memory().values()), f"task {index}: memory below zero")


def _learn(method: Method, task: Task, context: Context) -> LearnRecord:
    """Learn a task, and check that none of its images are kept."""
    before = method.num_parameters() if method.tasks else 0
    record = method.learn(task, context)
    added = method.num_parameters() - before
    _require(record.parameters_added == added, f"{context.task_name}: {record.parameters_added} parameters recorded as added, not {added}")
    _require(not alive(task.retire()), f"{context.task_name}: images are kept after the task")
    return record


def _own_tensors(method: Method, index: int) -> list[Tensor]:
    """Return copies of the tensors that answer for one task and no other, but for constant ones, which may stand in any task."""
    of = [{tensor.data_ptr(): tensor for tensor in kept_tensors(method.modules(task))} for task in range(len(method.tasks))]
    others = {place for task, tensors in enumerate(of) if task != index for place in tensors}
    own = [tensor.clone() for place, tensor in of[index].items() if place not in others]
    return [tensor for tensor in own if bool((tensor != tensor.flatten()[0]).any())]


def _images() -> Tensor:
    return torch.randint(0, 256, (PROBE, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def _answers(method: Method) -> list[Tensor]:
    return [method.logits(_images(), task) for task in range(len(method.tasks))]


def _same_answers_in_threads(method: Method) -> bool:
    """Tell whether threads that query different tasks at the same time get the same answers as one thread alone."""
    wanted, tasks, start = _answers(method), range(len(method.tasks)), threading.Barrier(THREADS)

    def ask(number: int) -> bool:
        start.wait()
        order = (*tasks[number % len(tasks) :], *tasks)
        return all(torch.allclose(method.logits(_images(), task), wanted[task], rtol=1e-3, atol=1e-4) for task in order)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return all(pool.map(ask, range(THREADS)))
    except RuntimeError:  # features of one task before the head of another need not even fit
        return False
    finally:
        sys.setswitchinterval(interval)


def _open_extractor(name: str, feature_input: str) -> Extractor:
    return open_extractor("pixels")


def _modules(value: object) -> Iterator[nn.Module]:
    """Yield every module that an object holds, including those in plain containers."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Method | ModuleLibrary | FrozenNetwork) or (is_dataclass(value) and not isinstance(value, type)):
        for item in vars(value).values():
            yield from _modules(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _modules(item)
    elif isinstance(value, dict):
        yield from _modules(list(value.values()))


def _same(left: Tree, right: Tree, message: str) -> None:
    path = _difference(left, right)
    _require(path is None, f"{message} (at {path})")


def _difference(left: Tree, right: Tree, path: str = "") -> str | None:
    """Find where two trees differ; None if they are equal."""
    if isinstance(left, Tensor):
        return None if isinstance(right, Tensor) and torch.equal(left, right) else path
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        pairs = [(key, left[key], right[key]) for key in left]
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        pairs = [(index, a, b) for index, (a, b) in enumerate(zip(left, right, strict=True))]
    else:
        return None if left == right else path
    return next((found for key, a, b in pairs if (found := _difference(a, b, f"{path}/{key}")) is not None), None)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConformanceError(message)


def made_context(index: int, training: TrainingSettings = TRAINING) -> Context:
    """Make the context of a synthetic task, without a folder."""
    return Context(
        task_index=index,
        task_name=f"made-{index}",
        training=training,
        seed=0,
        device=torch.device("cpu"),
        open_extractor=_open_extractor,
        save_every=0.0,
    )


def made_task(index: int, images: int) -> Task:
    """Make a synthetic task: a random pattern per class under noise, `images` training images per class."""
    generator = torch.Generator().manual_seed(index)
    patterns = 255 * torch.rand(CLASSES[index], 3, 8, 8, generator=generator)

    def load(split: str) -> Split:
        labels = torch.arange(CLASSES[index]).repeat_interleave(images if split == "train" else 4)
        noise = torch.randn(len(labels), 3, 8, 8, generator=torch.Generator().manual_seed(len(split)))
        return Split((patterns[labels] + 40 * noise).clamp(0, 255).to(torch.uint8), labels)

    names = [f"class {number}" for number in range(CLASSES[index])]
    return Task(f"made-{index}", names, load, augmentation=Augmentation(crop=1, flip=True))
