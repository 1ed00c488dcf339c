"""The one place where a saved state becomes a method again."""

from collections.abc import Sequence
from pathlib import Path

import torch

from lifelong.errors import LifelongError
from lifelong.methods.form import MisfitError
from lifelong.methods.forms import Recorded, check_form, check_loaded
from lifelong.methods.method import Method
from lifelong.storage import Tree
from lifelong.training.drawing import drawn_apart


def restore(method: Method, state: Tree, device: torch.device | str, where: Path | str, recorded: Sequence[Recorded] | None = None) -> None:
    """Let a fresh method become what was saved. No global random number is drawn, so that other threads may train meanwhile.

    Args:
        method: as its settings make it.
        state: what `Method.state_dict` gave, as it was read.
        device: where its networks shall be.
        where: what it was read from, for the message.
        recorded: of the tasks that it must have learned; None: whatever they are, and it is not asked for answers.

    Raises:
        LifelongError: the state is not one of this method with these settings, or the method it makes does not answer for its tasks.
    """
    try:
        check_form(method.name, state)
        with drawn_apart():
            method.load_state_dict(state, device)
        if recorded is not None:
            check_loaded(method, state, recorded)
    except (LifelongError, MemoryError, torch.OutOfMemoryError):
        raise
    except MisfitError as error:
        raise LifelongError(_line(where, method.name, str(error))) from error
    except Exception as error:  # whatever its loading, which may be a third party's, makes of values it never wrote
        raise LifelongError(_line(where, method.name, f"{type(error).__name__}: {error}")) from error


def _line(where: Path | str, method: str, reason: str) -> str:
    """One line of what is wrong."""
    said = " ".join(reason.split())
    said = said if len(said) <= 300 else f"{said[:297]}..."
    return f"{where} holds no state of the method '{method}' with the settings of this run ({said}); restore a copy, or learn the run again"
