"""Run a method over a stream, and continue where it was stopped."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lifelong import __version__
from lifelong.data.sources import Sources
from lifelong.data.task import Stream
from lifelong.errors import LifelongError
from lifelong.experiment.events import check_tensorboard
from lifelong.experiment.machine import choose_device, set_threads
from lifelong.experiment.progress import Progress
from lifelong.experiment.results import RECORDED, RunDirectory
from lifelong.experiment.runner import Runner
from lifelong.experiment.tuning import check_tuning
from lifelong.methods.registry import make_method
from lifelong.opening import open_regular
from lifelong.relatedness.extractor import Extractor, open_extractor
from lifelong.settings.resolve import as_begun, config_toml, default_values, flat
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.sockets import EXTRACTORS
from lifelong.streams.build import SpecStream
from lifelong.streams.check import as_notes, data_check
from lifelong.streams.named_streams import open_stream
from lifelong.training.denormals import flush_denormals
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import check_training, exact_float32
from lifelong.training.process import alone

STATE_VERSION = 2
"""Of the form of saved states; raised when those of older forms can no longer be read (docs/compatibility.md)."""

READS = {2: "0.1"}
"""The forms that this version reads, each with the first version of the library that wrote it."""


def run(config: RunConfig, out: Path, environment: Environment, progress: Progress | None = None) -> dict[str, Any]:
    """Learn a stream from where `out` stands to its end.

    Meanwhile the process has the run's number of threads, and takes numbers below the smallest normal float for zero
    (`flush_denormals`); afterwards it is as it was.

    Args:
        config: what decides the numbers.
        out: the run directory; a finished run is only read.
        environment: where data, weights and the device are.
        progress: is told what happens; None: nobody.

    Returns:
        The summary, as in summary.json.

    Raises:
        LifelongError: bad input, another run's directory, missing data, a full disk, a loss that is not finite.
    """
    with alone("run"):
        return _run(config, out, environment, progress)


def _run(config: RunConfig, out: Path, environment: Environment, progress: Progress | None) -> dict[str, Any]:
    if environment.tensorboard:
        check_tensorboard()
    keep_small_blocks()
    flush_denormals()
    directory = RunDirectory(out)
    device = choose_device(environment.device)
    stream = open_stream(
        config.stream, config.seed, Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)
    )
    settings, notes = resolve_extractor(config.settings, stream.name)
    notes += check_training(config.training, device, min(task.image_size for task in stream.describe()))
    config = replace(config, settings=settings)
    if directory.begun():
        config = as_begun(config, directory.identity())
    extractors = extractor_opener(environment, device)
    wanted = make_method(config.method, config.settings).extractor()
    if wanted is not None:
        # Before anything is written: weights may be missing.
        extractors(*wanted)
    check_tuning(config, {task.name: task.valid for task in stream.describe()})
    threads = set_threads(environment.threads, max(task.image_size for task in stream.describe()), environment.at_once)
    identity = _identity(config, stream, environment)
    if wanted is not None and not EXTRACTORS.built_in(wanted[0]):
        identity["extractor digest"] = extractors(*wanted).digest
    stream.prepare()
    notes += as_notes(data_check(stream))
    with directory.locked() as note:
        notes += [note] if note else []
        if directory.begun():
            check_readable(out, directory.identity())
        directory.claim(identity, config_toml(config), default_values(config))
        listener, saves = progress or Progress(), environment.save_every
        events, origin = environment.tensorboard, origin_of(content_of(stream), identity)
        runner = Runner(config, stream, directory, device, extractors, listener, notes, threads, saves, tensorboard=events, origin=origin)
        with exact_float32(device):
            return runner.to_end()


def resolve_extractor(settings: Any, stream: str) -> tuple[Any, list[str]]:
    """Decide what the extractor "auto" means: pixels for the embedded stream `digits`, ImageNet features for all others.

    Returns:
        The settings with the choice made, and what to tell the person about it.
    """
    if getattr(settings, "extractor", None) != "auto":
        return settings, []
    name = "pixels" if stream.partition("?")[0] == "digits" else "resnet18"
    notes = ["relatedness by raw pixels: the default of the stream 'digits', which needs no weights"] if name == "pixels" else []
    return replace(settings, extractor=name), notes


def extractor_opener(environment: Environment, device: torch.device) -> Callable[[str, str], Extractor]:
    """What opens an extractor by its name and input policy, once each."""

    @cache
    def opened(name: str, feature_input: str) -> Extractor:
        return open_extractor(name, weights=environment.weights, download=environment.download, feature_input=feature_input, device=device)

    return opened


def _identity(config: RunConfig, stream: Stream, environment: Environment) -> dict[str, Any]:
    """What must be equal for a run to be continued."""
    identity = {"version": STATE_VERSION, RECORDED: __version__} | flat(config) | {"stream images": stream.fingerprint()}
    if getattr(config.settings, "extractor", None) == "resnet18" and environment.weights is not None:
        identity["extractor weights"] = digest_file(environment.weights)
    return identity


def content_of(stream: Stream) -> dict[str, Any] | None:
    """What a stream is made of, whatever the seed draws from it (see `SpecStream.content`); None where it cannot say."""
    return stream.content() if isinstance(stream, SpecStream) else None


def origin_of(content: dict[str, Any] | None, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's summary says of where its numbers come from: by it, runs that differ in their seed alone are known.

    Args:
        content: of its stream.
        identity: of the run.
    """
    return {"stream_content": content, "extractor_weights": identity.get("extractor weights")}


def check_readable(path: Path, identity: Mapping[str, Any]) -> None:
    """See that a run's state is of a form that this version reads.

    Args:
        path: the run directory.
        identity: of the run.

    Raises:
        LifelongError: it is not; the line names the version that can.
    """
    form = identity.get("version")
    if form in READS:
        return
    writer = f" ({identity[RECORDED]})" if RECORDED in identity else ""
    newer = isinstance(form, int) and form > STATE_VERSION
    raise LifelongError(
        f"{path} was written by another version of lifelong{writer}, in form {form}; this is {__version__}, which reads form"
        f" {', '.join(map(str, READS))} (since {READS[STATE_VERSION]}); {'update it' if newer else 'use that version, or run again'}"
    )


def digest_file(path: Path) -> str:
    """A checksum of a file of weights.

    Raises:
        LifelongError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise LifelongError(f"cannot read the weights {path}: {error.strerror}; give a safetensors file with --weights") from error
