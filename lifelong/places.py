"""Where things are: folders, weights and the device, from what was given and from the environment's variables."""

import os
from collections.abc import Sequence
from pathlib import Path

from lifelong.errors import LifelongError
from lifelong.settings.arguments import MOST_THREADS, Place
from lifelong.settings.device import Device, parse_device
from lifelong.settings.fields import flag
from lifelong.settings.run import Environment
from lifelong.settings.sockets import OBSERVERS

__all__ = ["Device", "Place", "environment"]


def environment(
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: int = 0,
    save_every: float = 5.0,
    skip_broken: bool = False,
    tensorboard: bool = False,
    observe: Sequence[str] = (),
) -> Environment:
    """Where things are; `data` and `weights` default to the variables LIFELONG_DATA and LIFELONG_WEIGHTS.

    Raises:
        LifelongError: a number is negative, or no device or observer is called so.
    """
    parse_device(device)
    for name, value in (("threads", threads), ("save_every", save_every)):
        if not value >= 0:
            raise LifelongError(f"{flag(name)} {value}: expected a number >= 0")
    if threads > MOST_THREADS:
        raise LifelongError(f"--threads {threads}: expected at most {MOST_THREADS}; 0 lets the library choose")
    return Environment(
        data=_path(data, "LIFELONG_DATA"),
        weights=_path(weights, "LIFELONG_WEIGHTS"),
        device=device,
        download=download,
        threads=threads,
        save_every=save_every,
        skip_broken=skip_broken,
        observers=tuple(OBSERVERS.entry(name).name for name in dict.fromkeys([*observe, *(["tensorboard"] if tensorboard else [])])),
    )


def _path(given: Place | None, variable: str) -> Path | None:
    place = given if given is not None else os.environ.get(variable) or None
    return None if place is None else Path(place)
