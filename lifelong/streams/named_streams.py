"""Open streams by name. Names and descriptions are cheap; a stream's own module is imported when it is opened."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.data.address import KINDS, PYTHON, meant_address
from lifelong.errors import LifelongError, near_miss
from lifelong.settings.arguments import Seed
from lifelong.settings.fields import expected

if TYPE_CHECKING:
    from lifelong.data.sources import Sources
    from lifelong.data.task import Stream

_STREAMS = {
    # name: (module, function of the seed that gives the specification, one line about it)
    "digits": ("lifelong.streams.digits", "digits", "8 small tasks from 1,797 real handwritten digits, 8x8; embedded, nothing to download"),
    "ctrl-s-minus": ("lifelong.streams.ctrl", "s_minus", "CTrL S-: six tasks, the last one the first again with a tenth of its images"),
    "ctrl-s-plus": ("lifelong.streams.ctrl", "s_plus", "CTrL S+: six tasks, the last one the first again with ten times its images"),
    "ctrl-s-in": ("lifelong.streams.ctrl", "s_in", "CTrL S_in: six tasks, the last one the first again with few images and another colour"),
    "ctrl-s-out": ("lifelong.streams.ctrl", "s_out", "CTrL S_out: six tasks, the last one the first again with its labels shifted"),
    "ctrl-s-pl": ("lifelong.streams.ctrl", "s_pl", "CTrL S_pl: five unrelated tasks, the last one with ten times the images of the others"),
    "ctrl-s-long": ("lifelong.streams.ctrl", "s_long", "CTrL S_long: 100 tasks of five classes from five sources, ever fewer images"),
    "cifar10-5": ("lifelong.streams.splits", "cifar10_5", "CIFAR-10 in 5 tasks of 2 classes, 32x32; tasks ordered by the seed"),
    "cifar100-10": ("lifelong.streams.splits", "cifar100_10", "CIFAR-100 in 10 tasks of 10 classes, 32x32; classes ordered by the seed"),
    "cifar100-20": ("lifelong.streams.splits", "cifar100_20", "CIFAR-100 in 20 tasks of 5 classes, 32x32; classes ordered by the seed"),
    "cifar100-coarse": ("lifelong.streams.splits", "cifar100_coarse", "CIFAR-100 in 20 tasks of 5 classes, one per superclass, 32x32"),
    "miniimagenet-20": ("lifelong.streams.splits", "miniimagenet_20", "miniImageNet in 20 tasks of 5 classes, 84x84; ordered by the seed"),
    "cifar100-fceleba": ("lifelong.streams.celeba", "cifar100_fceleba", "10 tasks of CIFAR-100 mixed with 10 of few faces, 32x32"),
}


def stream_names() -> dict[str, str]:
    """Return each named stream with one line about it."""
    return {name: text for name, (_, _, text) in _STREAMS.items()}


def open_stream(name: str, seed: int, sources: "Sources") -> "Stream":
    """Open a stream by its name, from a TOML file, or from the address of a user's own images.

    Args:
        name: one of `stream_names()`, if wanted with fewer tasks or images (see `lifelong.streams.reduced`), the path of a file that
            ends in `.toml` (also made smaller), or the address of images such as `folder:PATH` (see `lifelong.streams.user_images`).
        seed: decides which images are drawn, and which classes where the stream leaves that open.
        sources: opens the image sources.

    Raises:
        LifelongError: there is no such stream, or its file does not define one.
    """
    from lifelong.streams.build import SpecStream

    if not 0 <= seed < 2**32:
        raise LifelongError(f"seed {seed}: expected {expected(Seed)}")
    from lifelong.streams.reduced import parse_reduction, reduced

    if name.startswith(f"{PYTHON}:"):
        from lifelong.streams.objects import object_stream

        return SpecStream(object_stream(name, sources), seed, sources)
    file, mark, options = name.rpartition(".toml?")
    if name.endswith(".toml") or mark:
        from lifelong.streams.reading import read_stream

        spec = read_stream(Path(f"{file}.toml" if mark else name))
        if not mark:
            return SpecStream(spec, seed, sources)
        _, reduction = parse_reduction(f"{spec.name}?{options}")
        return SpecStream(reduced(spec, f"{spec.name}?{options}", reduction), seed, sources)
    if name.partition(":")[0] in KINDS and ":" in name:
        from lifelong.streams.user_images import user_stream

        return SpecStream(user_stream(name, seed, sources), seed, sources)
    place = name.partition("?")[0]
    if place not in _STREAMS:
        meant = meant_address(name, (sources.data, Path.cwd()))
        if meant:
            raise LifelongError(f"unknown stream '{place}'{meant}")
        hint = "(your own: a file that ends in .toml, or folder:PATH)"
        raise LifelongError(f"unknown stream '{place}'{near_miss(place, _STREAMS)} {hint}")
    stream, reduction = parse_reduction(name)
    module, function, _ = _STREAMS[stream]
    spec = replace(getattr(importlib.import_module(module), function)(seed), drawn_from=name)
    return SpecStream(reduced(spec, name, reduction) if reduction else spec, seed, sources)
