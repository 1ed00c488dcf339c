"""Features of a frozen network kept on the disk, so that a task's images pass the network once, whichever runs and methods ask.

They are known by the content of the images, the network's weights, its input size and stages, and by what decides the last bit of a sum
(processor, PyTorch, threads): what is read equals to the bit what would be computed. Where half precision holds features exactly, as it
does those of `rounded`, they take half the bytes. Each file carries a digest; a damaged one is dropped, with a warning in the log, and its
features are computed again. The folder `features` of the cache (`LIFELONG_CACHE`) holds 2 GB at most; what was not used for longest goes
first.

Only runs keep features: between `keeping` and its end. Predictions for single images do not touch the disk.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lifelong.data.cache import cache_folder
from lifelong.devices import processor_name
from lifelong.errors import LifelongError
from lifelong.storage import read_tree, remove, save_tree

log = logging.getLogger(__name__)

LIMIT = 2 * 2**30
"""Bytes of all files together, at most."""

ABANDONED = 24 * 3600.0
"""Seconds after which a file that is still being written is one that a killed process left."""


@dataclass
class Keeping:
    """What came of `keeping`.

    Attributes:
        seconds: that it took to compute what is kept from then on.
    """

    seconds: float = 0.0


_keeps: ContextVar[Keeping | None] = ContextVar("keeps", default=None)


@contextlib.contextmanager
def keeping() -> Generator[Keeping]:
    """Keep the features that are computed meanwhile, in this thread, and use those that were kept."""
    found = Keeping()
    before = _keeps.set(found)
    try:
        yield found
    finally:
        _keeps.reset(before)


def kept(
    images: UInt8[Tensor, "n 3 h w"],
    network: Sequence[str | int | None],
    device: torch.device,
    compute: Callable[[], Float[Tensor, "n d"]],
) -> Float[Tensor, "n d"]:
    """Return features of images, computed if they are not on the disk.

    Args:
        images: whose features they are.
        network: what tells networks apart whose features differ.
        device: where they are computed.
        compute: computes them.
    """
    keeps = _keeps.get()
    if keeps is None:
        return compute()
    path = _place(images, network, device)
    found = _read(path)
    if found is not None and len(found) == len(images):
        return found.to(device, torch.get_default_dtype())
    began = time.perf_counter()
    features = compute()
    _write(path, _narrowed(features.detach().cpu()))
    keeps.seconds += time.perf_counter() - began
    return features


def rounded(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Round features to half precision, in which they are kept in half the bytes; those beyond its range stay as they are."""
    narrow = features.half().to(features.dtype)
    # Chosen by the tensors themselves: the host does not wait for a device, and the choice can be traced for export.
    return torch.where(narrow.isfinite().all(), narrow, features)


def _narrowed(features: Float[Tensor, "n d"]) -> Tensor:
    """Return features in half precision where that is exact."""
    narrow = features.half()
    return narrow if torch.equal(narrow.to(features.dtype), features) else features


def _place(images: UInt8[Tensor, "n 3 h w"], network: Sequence[str | int | None], device: torch.device) -> Path:
    about = [*network, list(images.shape), str(torch.get_default_dtype()), *_arithmetic(device), torch.get_num_threads()]
    total = hashlib.sha256(json.dumps(about).encode())
    total.update(images.cpu().contiguous().numpy().data)
    return cache_folder() / "features" / f"{total.hexdigest()[:40]}.safetensors"


@cache
def _arithmetic(device: torch.device) -> tuple[str, ...]:
    """Return what decides the last bit of a sum, besides the number of threads."""
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return torch.__version__, where, processor_name(), torch.backends.cpu.get_cpu_capability(), *limits


def _read(path: Path) -> Tensor | None:
    """Return the features of a file, which is then the last one used; None if it is missing or damaged."""
    if not path.exists():
        return None
    try:
        features = read_tree(path, owner=path.name, required=True).tree
    except LifelongError as error:
        log.warning("%s: dropped, and computed again", error)
        with contextlib.suppress(LifelongError):
            remove(path)
        return None
    with contextlib.suppress(OSError):  # dropped by another process, or in a folder that only others write to
        os.utime(path)
    return features if isinstance(features, Tensor) and features.ndim == 2 else None


def _write(path: Path, features: Tensor) -> None:
    """Keep features, unless they alone are more than is kept. A run does not depend on it: where it fails, the log says so."""
    size = features.numel() * features.element_size()
    if size > LIMIT:
        return
    try:
        _make_room(path.parent, size)
        save_tree(path, features, path.name)
    except (LifelongError, OSError) as error:
        log.warning("features are not kept: %s", error)


def _make_room(folder: Path, size: int) -> None:
    """Delete the files that were not used for longest until a new one fits."""
    if not folder.is_dir():
        return
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another process dropped it
            about = entry.stat(follow_symlinks=False)
            if entry.name.startswith(".") and time.time() - about.st_mtime < ABANDONED:
                continue  # being written
            files.append((0.0 if entry.name.startswith(".") else about.st_mtime, about.st_size, entry.path))
    total = sum(bytes_ for _, bytes_, _ in files) + size
    for used, bytes_, path in sorted(files):
        if total <= LIMIT and used:
            break
        remove(Path(path))
        total -= bytes_
