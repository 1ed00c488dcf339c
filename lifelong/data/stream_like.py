"""What functions take for a stream besides its name: objects. Importing this imports no torch."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from annotated_types import Predicate

from lifelong.settings.fields import Words

if TYPE_CHECKING:
    from lifelong.data.task import Stream, Task


def _is_task(value: object) -> bool:
    # A task cannot be there before its module is.
    module = sys.modules.get("lifelong.data.task")
    return module is not None and isinstance(value, module.Task)


def is_stream(value: object) -> bool:
    """Tell whether a value is a stream of objects: a `Stream`, a task, or a list of tasks."""
    if _is_task(value) or (isinstance(value, (list, tuple)) and len(value) > 0 and all(map(_is_task, value))):
        return True
    # By its methods, not its type: to look for these is cheap.
    return all(hasattr(type(value), name) for name in ("describe", "fingerprint", "__getitem__", "__len__"))


if TYPE_CHECKING:
    TaskObject = Task
    StreamObjects = Stream | Task | Sequence[Task]
else:
    TaskObject = Annotated[object, Predicate(_is_task), Words("a task of lifelong.Task.from_arrays or from_dataset")]
    StreamObjects = Annotated[
        object,
        Predicate(is_stream),
        Words("a lifelong.Stream, or a list of tasks, each made by lifelong.Task.from_arrays or from_dataset"),
    ]
"""A task, and a stream or a list of tasks: checked by `lifelong.settings.arguments.checked`."""
