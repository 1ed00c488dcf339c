"""Help for commands that take hyper-parameters: shows the settings of the methods on the command line only."""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any

from cyclopts import App, Parameter

from lifelong.cli.flags import make_flags
from lifelong.errors import LifelongError
from lifelong.methods.registry import known_methods
from lifelong.settings.resolve import unknown_method

CHOOSES = {"run": "--method", "tune": "--method", "compare": "--methods"}
"""The commands that take every hyper-parameter, and their flag that names methods."""


def with_help(app: App, words: Sequence[str]) -> App:
    """Return the application, or where help is asked for, one that shows the settings of the named methods alone.

    Args:
        app: the application, which takes every setting of every method.
        words: the command line.

    Raises:
        LifelongError: a named method is unknown.
    """
    command = words[0] if words else ""
    if command not in CHOOSES or not set(app.help_flags) & set(words):
        return app
    methods = _named(words, CHOOSES[command])
    for name in methods:
        if name not in known_methods():
            raise LifelongError(f"{CHOOSES[command]}: {unknown_method(name, known_methods())}")
    full = app[command]
    assert full.default_command is not None
    shown = App(name=app.name, help_format=app.help_format)
    annotated: Any = Annotated
    annotation = annotated[make_flags(methods=methods), Parameter(name="*")]
    shown.command(_with_hyper(full.default_command, annotation), name=command, usage=full.usage, help_epilogue=_more(command, methods))
    return shown


def _named(words: Sequence[str], flag: str) -> list[str]:
    """Return the methods that a command line names, without repetition."""
    found: list[str] = []
    taking = False
    for word in words:
        name, sign, value = word.partition("=")
        if word.startswith("-"):
            taking = name == flag
            word = value if sign else ""
        if taking:
            found += [part.strip() for part in word.split(",") if part.strip()]
            taking = flag == "--methods" or not word
    return list(dict.fromkeys(found))


def _more(command: str, methods: Sequence[str]) -> str:
    """Say how to see the settings that are not shown."""
    if methods:
        return "Settings of another method: lifelong methods NAME. All methods: lifelong methods."
    several = "NAME,NAME" if CHOOSES[command] == "--methods" else "NAME"
    return (
        "The settings of a method are flags too. List them with: "
        f"lifelong {command} {CHOOSES[command]} {several} --help, or lifelong methods NAME. All methods: lifelong methods."
    )


def _with_hyper(function: Callable[..., Any], annotation: Any) -> Callable[..., None]:
    """Make a stand-in for a command, with another set of hyper-parameters: for its help, never to be called."""

    @wraps(function)
    def shown(**given: Any) -> None:
        raise NotImplementedError

    known = inspect.signature(function)
    parameters = [item.replace(annotation=annotation, default=None) if item.name == "hyper" else item for item in known.parameters.values()]
    shown.__annotations__ = function.__annotations__ | {"hyper": annotation}
    vars(shown)["__signature__"] = known.replace(parameters=parameters)
    return shown
