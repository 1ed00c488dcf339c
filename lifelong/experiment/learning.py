"""Learn one task with timing, and release its images."""

import time
from collections.abc import Sequence

from torch import nn

from lifelong.data.task import Task, alive
from lifelong.devices import all_finite
from lifelong.errors import DivergedError
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.watch import Modules, Watch, digest_of_modules, kept_tensors


def learn_timed(method: Method, task: Task, context: Context, watch: Watch | None = None) -> LearnRecord:
    """Let a method learn a task; time that its record does not account for is the phase "other".

    Args:
        method: the method.
        task: the task.
        context: of the task.
        watch: knows which modules were there before; None: none are known.

    Raises:
        DivergedError: weights that answer for a task are not finite.
    """
    started = time.perf_counter()
    record = method.learn(task, context)
    hold_finite(method, (watch or Watch()).look(modules_of(method)), task.name, context.training.lr, record.epochs)
    # The record includes what a resumed stage spent before it was interrupted; the clock only measures this process.
    elapsed = time.perf_counter() - started
    record.seconds["other"] = max(elapsed - sum(record.seconds.values()), 0.0)
    return record


def hold_finite(method: Method, modules: Sequence[nn.Module], task: str, lr: float, epochs: int = 0) -> None:
    """Check that weights can be used.

    Args:
        method: the method.
        modules: those of its modules that may have changed.
        task: name of the task that was learned.
        lr: with which learning rate.
        epochs: for how many epochs.

    Raises:
        DivergedError: they are not finite.
    """
    if not all_finite(kept_tensors(modules)):
        bad = {id(module) for module in modules if not all_finite(kept_tensors([module]))}
        wrong = next(index for index in range(len(method.tasks)) if bad & set(map(id, method.modules(index))))
        raise DivergedError(
            f"task '{task}': weights that answer for task '{method.tasks[wrong].name}' became NaN or infinite,"
            f" with lr {lr:g}; lower it and run again",
            epochs,
        )


def retire(task: Task, method: str) -> None:
    """Release a learned task's images, and check that the method has kept none of them.

    Raises:
        RuntimeError: the method still refers to the images, which breaks the lifelong setting.
    """
    if alive(task.retire()):
        raise RuntimeError(f"the method '{method}' keeps images of task '{task.name}'; a copy of a few belongs in its own counted memory")


def modules_of(method: Method) -> list[Modules]:
    """Return the modules that answer for each task."""
    return [tuple(method.modules(index)) for index in range(len(method.tasks))]


def digest_modules(method: Method, task_index: int) -> str:
    """Return a hash over all parameters and buffers that answer for a task."""
    return digest_of_modules(method.modules(task_index))
