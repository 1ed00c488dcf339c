"""Learning one task: timed, its images let go of, and its weights known by their digest."""

import hashlib
import time

from lifelong.data.task import Task, alive
from lifelong.devices import all_finite
from lifelong.errors import DivergedError
from lifelong.methods.method import Context, LearnRecord, Method


def learn_timed(method: Method, task: Task, context: Context) -> LearnRecord:
    """Make a method learn a task; the time that its record does not name is the phase "other".

    Raises:
        DivergedError: weights that answer for a task are not finite.
    """
    started = time.perf_counter()
    record = method.learn(task, context)
    for index, learned in enumerate(method.tasks):
        kept = (tensor for module in method.modules(index) for tensor in module.state_dict().values())
        if not all_finite(kept):
            raise DivergedError(
                f"task '{task.name}': weights that answer for task '{learned.name}' became NaN or infinite,"
                f" with lr {context.training.lr:g}; lower it and run again",
                record.epochs,
            )
    # What a resumed stage spent before it was interrupted stands in the record; the clock knows only this process.
    elapsed = time.perf_counter() - started
    record.seconds["other"] = max(elapsed - sum(record.seconds.values()), 0.0)
    return record


def retire(task: Task, method: str) -> None:
    """Let a learned task's images go, and see that the method has kept none of them.

    Raises:
        RuntimeError: a reference to the images is alive: the method breaks the lifelong setting.
    """
    if alive(task.retire()):
        raise RuntimeError(f"the method '{method}' keeps images of task '{task.name}'; a copy of a few belongs in its own counted memory")


def digest_modules(method: Method, task_index: int) -> str:
    """Return a hash over all parameters and buffers that answer for a task."""
    digest = hashlib.sha256()
    for module in method.modules(task_index):
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
