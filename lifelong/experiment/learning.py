"""Learn one task with timing, release its images, and compute a digest of its weights."""

import hashlib
import time

from lifelong.data.task import Task, alive
from lifelong.devices import all_finite
from lifelong.errors import DivergedError
from lifelong.methods.method import Context, LearnRecord, Method


def learn_timed(method: Method, task: Task, context: Context) -> LearnRecord:
    """Let a method learn a task; time that its record does not account for is the phase "other".

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
    # The record includes what a resumed stage spent before it was interrupted; the clock only measures this process.
    elapsed = time.perf_counter() - started
    record.seconds["other"] = max(elapsed - sum(record.seconds.values()), 0.0)
    return record


def retire(task: Task, method: str) -> None:
    """Release a learned task's images, and check that the method has kept none of them.

    Raises:
        RuntimeError: the method still refers to the images, which breaks the lifelong setting.
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
