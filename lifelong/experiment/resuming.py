"""What was kept of an interrupted task, and cannot be used, costs the time to learn the task again, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from lifelong.errors import LifelongError

Learned = TypeVar("Learned")


def resumed(learn: Callable[[], Learned], folder: Path, begin_anew: Callable[[str], None]) -> Learned:
    """Learn a task from the stages that an earlier start has kept.

    Args:
        learn: learns the task; looks into `folder`.
        folder: of the task's stages.
        begin_anew: drops them, and puts the method back to where it was before the task; it is given why, in a few words.

    Raises:
        Exception: what `learn` raises, if nothing was kept, or if it does so without it too.
    """
    kept = any(folder.rglob("*.safetensors"))
    try:
        return learn()
    except (LifelongError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a method makes of a state that it never wrote
        if not kept:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    begin_anew(reason if len(reason) <= 200 else f"{reason[:197]}...")
    return learn()
