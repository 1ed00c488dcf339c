"""The name of a device as a person gives it: `auto`, `cpu`, `cuda`, `cuda:1`, ... or `mps`.

Whether there is such a device on this machine only PyTorch knows: `lifelong.experiment.machine.choose_device`.
"""

import re

from lifelong.errors import LifelongError, near_miss

Device = str
"""A device by its name; see `parse_device`."""

ACCELERATORS = {"cuda": True, "mps": False}
"""The kinds of accelerators in the order in which `auto` looks for them, and whether one of several is named by a number."""

ABOUT_DEVICE = (
    "where to compute: cpu, cuda (the first GPU), cuda:1 (the second), mps (Apple's), or auto: the first there is of cuda, mps, cpu"
)

_MEANT = {"gpu": "cuda", "nvidia": "cuda", "rocm": "cuda", "hip": "cuda", "apple": "mps", "metal": "mps", "processor": "cpu", "host": "cpu"}


def parse_device(name: Device) -> tuple[str, int | None]:
    """The kind of a device, "auto" among them, and its number, if it has one.

    Raises:
        LifelongError: no device is named so.
    """
    kind, colon, number = str(name).partition(":")
    if kind not in ("auto", "cpu", *ACCELERATORS):
        raise LifelongError(f"--device {name}: no such device{_meant(kind)}")
    if not colon:
        return kind, None
    if not ACCELERATORS.get(kind):
        raise LifelongError(f"--device {name}: only one is called {kind}, and it has no number; give --device {kind}")
    if not re.fullmatch(r"[0-9]+", number):
        raise LifelongError(f"--device {name}: '{number}' is no number of a card; they are counted from 0: {kind}:0, {kind}:1, ...")
    return kind, int(number)


def _meant(word: str) -> str:
    """The end of an error line about an unknown kind."""
    numbered = re.fullmatch(r"([a-z]+)[-_ ]?([0-9]+)", word.lower())
    kind = numbered[1] if numbered else word.lower()
    kind = _MEANT.get(kind, kind)
    if kind in ("auto", "cpu", *ACCELERATORS):
        return f"; did you mean '{kind}:{numbered[2]}'?" if numbered and ACCELERATORS.get(kind) else f"; did you mean '{kind}'?"
    return near_miss(word, ("auto", "cpu", *ACCELERATORS))
