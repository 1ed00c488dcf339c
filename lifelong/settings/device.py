"""Device names: `auto`, `cpu`, `cuda`, `cuda:1`, ... or `mps`.

Only PyTorch knows whether this machine has the device: `lifelong.experiment.machine.choose_device`.
"""

import re

from lifelong.errors import LifelongError, near_miss

Device = str
"""Name of a device; see `parse_device`."""

ACCELERATORS = {"cuda": True, "mps": False}
"""Kinds of accelerators in the order in which `auto` tries them, and whether they are numbered."""

ABOUT_DEVICE = (
    "device: cpu, cuda (first GPU; parallel runs: all in turn), cuda:1 (second GPU), mps (Apple GPU), or auto (the first available of "
    "cuda, mps, cpu)"
)

_MEANT = {"gpu": "cuda", "nvidia": "cuda", "rocm": "cuda", "hip": "cuda", "apple": "mps", "metal": "mps", "processor": "cpu", "host": "cpu"}


def parse_device(name: Device) -> tuple[str, int | None]:
    """Split a device name into its kind, "auto" included, and its number, if any.

    Raises:
        LifelongError: the name is not valid.
    """
    kind, colon, number = str(name).partition(":")
    if kind not in ("auto", "cpu", *ACCELERATORS):
        raise LifelongError(f"--device {name}: no such device{_meant(kind)}")
    if not colon:
        return kind, None
    if not ACCELERATORS.get(kind):
        raise LifelongError(f"--device {name}: {kind} has no number; use --device {kind}")
    if not re.fullmatch(r"[0-9]+", number):
        raise LifelongError(f"--device {name}: '{number}' is not a device number; numbers start at 0: {kind}:0, {kind}:1, ...")
    return kind, int(number)


def _meant(word: str) -> str:
    """Suggest a kind of device, as the end of an error message."""
    numbered = re.fullmatch(r"([a-z]+)[-_ ]?([0-9]+)", word.lower())
    kind = numbered[1] if numbered else word.lower()
    kind = _MEANT.get(kind, kind)
    if kind in ("auto", "cpu", *ACCELERATORS):
        return f"; did you mean '{kind}:{numbered[2]}'?" if numbered and ACCELERATORS.get(kind) else f"; did you mean '{kind}'?"
    return near_miss(word, ("auto", "cpu", *ACCELERATORS))
