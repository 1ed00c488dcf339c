"""Restoring a method from a saved state."""

from collections.abc import Sequence
from pathlib import Path

import torch

from lifelong.errors import LifelongError
from lifelong.methods.form import MisfitError
from lifelong.methods.method import Method
from lifelong.methods.state_checks import Recorded, check_form, check_loaded
from lifelong.networks.copies import loading
from lifelong.storage import Tree
from lifelong.training.isolated_draws import drawn_apart


def restore(
    method: Method,
    state: Tree,
    device: torch.device | str,
    where: Path | str,
    recorded: Sequence[Recorded] | None = None,
    *,
    own: bool = False,
) -> None:
    """Restore a fresh method from its saved state, without drawing global random numbers, so that other threads may train meanwhile.

    Args:
        method: a fresh method with the settings of the run.
        state: what `Method.state_dict` returned, as read.
        device: device of its networks.
        where: what it was read from, for the message.
        recorded: the tasks that it must have learned; None: any, and its answers are not tried.
        own: nobody else has the tensors of the state, which the method may then take over.

    Raises:
        LifelongError: the state is not one of this method with these settings, or the method it makes does not answer for its tasks.
    """
    try:
        check_form(method.name, state)
        with loading(own=own) as loaded:
            with drawn_apart():
                method.load_state_dict(state, device)
            if recorded is not None:
                check_loaded(method, state, recorded, loaded)
    except (LifelongError, MemoryError, torch.OutOfMemoryError):
        raise
    except MisfitError as error:
        raise LifelongError(_line(where, method.name, str(error))) from error
    except Exception as error:  # loading, possibly a third party's, may fail in any way on values it never wrote
        raise LifelongError(_line(where, method.name, f"{type(error).__name__}: {error}")) from error


def _line(where: Path | str, method: str, reason: str) -> str:
    """Format the problem as one line."""
    said = " ".join(reason.split())
    said = said if len(said) <= 300 else f"{said[:297]}..."
    return f"{where} holds no state of the method '{method}' with the settings of this run ({said}); restore a copy, or learn the run again"
