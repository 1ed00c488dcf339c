"""Learn an interrupted task again if its saved stages cannot be used; nothing else is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from lifelong.errors import LifelongError

Learned = TypeVar("Learned")


def resumed(learn: Callable[[], Learned], folder: Path, begin_anew: Callable[[str], None]) -> Learned:
    """Learn a task, continuing from the stages that an earlier start has saved.

    Args:
        learn: learns the task, using the stages in `folder`.
        folder: the folder of the task's stages.
        begin_anew: drops the stages and resets the method to its state before the task; takes the reason, in a few words.

    Raises:
        Exception: raised by `learn`, if there were no saved stages, or again without them.
    """
    kept = any(folder.rglob("*.safetensors"))
    try:
        return learn()
    except (LifelongError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a method may fail in any way on a state that it did not write
        if not kept:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    begin_anew(reason if len(reason) <= 200 else f"{reason[:197]}...")
    return learn()
