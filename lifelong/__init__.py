"""Lifelong learning of image-classification tasks: each public name is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.api import compare, distances, learn, open_stream, run, tune, verify
    from lifelong.data.task import Split, Stream, Task
    from lifelong.errors import LifelongError
    from lifelong.experiment.verify import Verification
    from lifelong.exports import export
    from lifelong.learner import Learner, Prediction
    from lifelong.methods.conformance import check_method
    from lifelong.methods.method import Method
    from lifelong.methods.registry import make_method, register_method

__version__ = "0.1.0"

_PUBLIC = {
    "run": "lifelong.api",
    "tune": "lifelong.api",
    "compare": "lifelong.api",
    "distances": "lifelong.api",
    "learn": "lifelong.api",
    "open_stream": "lifelong.api",
    "verify": "lifelong.api",
    "Verification": "lifelong.experiment.verify",
    "export": "lifelong.exports",
    "Learner": "lifelong.learner",
    "Prediction": "lifelong.learner",
    "make_method": "lifelong.methods.registry",
    "register_method": "lifelong.methods.registry",
    "check_method": "lifelong.methods.conformance",
    "Method": "lifelong.methods.method",
    "Split": "lifelong.data.task",
    "Stream": "lifelong.data.task",
    "Task": "lifelong.data.task",
    "LifelongError": "lifelong.errors",
}

__all__ = [
    "Learner",
    "LifelongError",
    "Method",
    "Prediction",
    "Split",
    "Stream",
    "Task",
    "Verification",
    "__version__",
    "check_method",
    "compare",
    "distances",
    "export",
    "learn",
    "make_method",
    "open_stream",
    "register_method",
    "run",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lifelong' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
