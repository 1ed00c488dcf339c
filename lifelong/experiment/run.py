"""Run a method over a stream, and continue where it was stopped."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lifelong import __version__
from lifelong.data.address import PYTHON
from lifelong.data.sources import Sources
from lifelong.data.task import Stream
from lifelong.digests import RECORDED
from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.identity import STATE_VERSION, misfit
from lifelong.experiment.machine import choose_device, set_threads
from lifelong.experiment.observer import Observer
from lifelong.experiment.observers import observed
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.runner import Runner
from lifelong.experiment.tuning import check_tuning
from lifelong.methods.registry import known_methods, make_method
from lifelong.opening import open_regular
from lifelong.records.run import Content, RunRecord
from lifelong.relatedness.extractor import Extractor, open_extractor
from lifelong.settings.resolve import as_begun, config_toml, default_values, flat, resolve
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.sockets import EXTRACTORS
from lifelong.storage import write_text
from lifelong.streams.build import SpecStream
from lifelong.streams.check import as_notes, data_check
from lifelong.streams.named_streams import open_stream
from lifelong.streams.objects import differences
from lifelong.training.denormals import flush_denormals
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import check_training, exact_float32
from lifelong.training.process import alone
from lifelong.uncollected import uncollected

READ_FROM_FILE = ("resnet18", "squeezenet")
"""The extractors that a run knows by the file of their weights; others by the weights themselves."""


def run(config: RunConfig, out: Path, environment: Environment, progress: Observer | None = None) -> RunRecord:
    """Learn a stream from where `out` stands to its end.

    Meanwhile the process has the run's number of threads, and takes numbers below the smallest normal float for zero
    (`flush_denormals`); afterwards it is as it was.

    Args:
        config: what decides the numbers.
        out: the run directory; a finished run is only read.
        environment: where data, weights and the device are.
        progress: is told what happens; None: nobody.

    Returns:
        The summary, as it stands in summary.json.

    Raises:
        LifelongError: bad input, another run's directory, missing data, a full disk, a loss that is not finite.
    """
    with alone("run"):
        return _run(config, out, environment, progress)


def _run(config: RunConfig, out: Path, environment: Environment, progress: Observer | None) -> RunRecord:
    listener = observed(environment.observers, progress)
    keep_small_blocks()
    flush_denormals()
    directory = RunDirectory(out)
    with uncollected():
        device = choose_device(environment.device)
        stream = open_stream(config.stream, config.seed, sources_of(environment))
        extractors = extractor_opener(environment, device)
        ready = prepare(config, directory, environment, stream, extractors, device)
        config, identity, notes = ready.config, ready.identity(stream, environment, extractors), ready.notes
        threads = set_threads(environment.threads, max(task.image_size for task in stream.describe()), environment.at_once)
        stream.prepare()
        notes += as_notes(data_check(stream))
    with directory.locked() as note:
        notes += [note] if note else []
        repaired = directory.claim(identity, config_toml(config), default_values(config))
        repaired += hold_config(directory, config)
        saves, origin = environment.save_every, origin_of(content_of(stream), identity)
        directory.keep_versions = environment.keep_versions
        runner = Runner(config, stream, directory, device, extractors, listener, notes, threads, saves, origin=origin, repaired=repaired)
        with exact_float32(device):
            return runner.to_end()


def check_objects(path: Path, stored: Mapping[str, Any], config: RunConfig, sources: Sources) -> None:
    """Check that a run of objects from Python is continued with equal ones.

    Args:
        path: the run directory.
        stored: the run's identity.
        config: the configuration that is asked for now.
        sources: has the cache of the objects.

    Raises:
        LifelongError: they are others; the message says in what.
    """
    before, now = stored.get("stream"), config.stream
    if before != now and all(isinstance(name, str) and name.startswith(f"{PYTHON}:") for name in (before, now)):
        raise LifelongError(
            f"{path} holds a run of other objects: now {differences(str(before), now, sources)}; give equal ones to continue it, choose"
            " another --out, or delete that folder to start over"
        )


def sources_of(environment: Environment) -> Sources:
    """Return where an environment's images are."""
    return Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)


@dataclass(frozen=True)
class Ready:
    """A run that can start.

    Attributes:
        config: its configuration, with what "auto" means, and as the run in its folder was begun.
        stored: the identity of that run; None: none was begun.
        kept: whether that run keeps the frozen network of its method.
        notes: what to tell the user.
    """

    config: RunConfig
    stored: dict[str, Any] | None
    kept: bool
    notes: list[str]

    def identity(self, stream: Stream, environment: Environment, extractors: Callable[[str, str], Extractor]) -> dict[str, Any]:
        """Return what must be equal for the run to be continued; for the arguments see `prepare`."""
        identity = identity_of(self.config, stream, environment)
        wanted = make_method(self.config.method, self.config.settings).extractor()
        if wanted is not None and not EXTRACTORS.built_in(wanted[0]):
            identity["extractor digest"] = self.stored.get("extractor digest") if self.stored and self.kept else extractors(*wanted).digest
        return identity


def prepare(
    config: RunConfig,
    directory: RunDirectory,
    environment: Environment,
    stream: Stream,
    extractors: Callable[[str, str], Extractor],
    device: torch.device,
) -> Ready:
    """Find out whether a run can start, before anything is written, and with what it starts.

    Args:
        config: of the run.
        directory: its run directory.
        environment: where data, weights and the device are.
        stream: which it learns.
        extractors: opens an extractor by its name and input policy; see `extractor_opener`.
        device: on which it computes.

    Raises:
        LifelongError: a setting does not fit the stream or the device, or weights are missing.
    """
    settings, notes = resolve_extractor(config.settings, stream.name)
    notes += check_training(config.training, device, min(task.image_size for task in stream.describe()))
    config = replace(config, settings=settings)
    stored = begun_with(directory)
    if stored is not None:
        config = as_begun(config, stored)
        check_objects(directory.path, stored, config, sources_of(environment))
    wanted = make_method(config.method, config.settings).extractor()
    # Weights that are given all the same are compared with the run's.
    kept = stored is not None and environment.weights is None and _keeps_network(directory)
    if wanted is not None and not kept:
        # Before anything is written: weights may be missing.
        extractors(*wanted)
    check_tuning(config, {task.name: task.valid for task in stream.describe()})
    return Ready(config, stored, kept, notes)


def _keeps_network(directory: RunDirectory) -> bool:
    """Tell whether a run that was begun here keeps the frozen network of its method, so that it continues without the file of weights."""
    try:
        method = directory.outline("method")
    except (LifelongError, AttributeError):  # is reported where the state is read
        return False
    return isinstance(method, dict) and method.get("network") is not None


def begun_with(directory: RunDirectory) -> dict[str, Any] | None:
    """By what a run that was begun here knows itself; None where none was, or nothing whole says it."""
    if not directory.begun():
        return None
    try:
        return directory.identity()
    except DamagedError:
        return directory.identity_of_state()


def read_config(directory: RunDirectory) -> RunConfig:
    """Return the configuration of a run, which must be what it was learned with.

    Raises:
        LifelongError: config.toml is missing, cannot be used, or says something else than the run's identity.
    """
    config, file = read_settings(directory), directory.path / "config.toml"
    wrong = misfit(config, directory.identity())
    if wrong is not None:
        raise DamagedError(
            f"{file} says {wrong}, as the run was learned; rerun the command that started the run to repair it, or use: lifelong verify"
            f" {directory.path} --repair"
        )
    return config


def read_settings(directory: RunDirectory) -> RunConfig:
    """Read config.toml.

    Raises:
        LifelongError: it is missing, or cannot be used.
    """
    methods = {name: entry.settings for name, entry in known_methods().items()}
    # A setting that a later version has was as its default, whatever a preset says of it now.
    return resolve(None, None, None, None, directory.path / "config.toml", {}, methods=methods, presets=False)


def hold_config(directory: RunDirectory, config: RunConfig) -> list[str]:
    """Write config.toml anew if it does not say what its run is learned with; returns what was repaired."""
    file = directory.path / "config.toml"
    try:
        read_config(directory)
        return []
    except LifelongError as error:
        missing = not file.exists()
        write_text(file, config_toml(config))
        return ["config.toml was missing; rewritten" if missing else f"config.toml was damaged or changed ({error}); rewritten"]


def resolve_extractor(settings: Any, stream: str) -> tuple[Any, list[str]]:
    """Decide what the extractor "auto" means: pixels for the embedded stream `digits`, ImageNet features for all others.

    Returns:
        The settings with the choice made, and what to tell the person about it.
    """
    if getattr(settings, "extractor", None) != "auto":
        return settings, []
    name = "pixels" if stream.partition("?")[0] == "digits" else "resnet18"
    what = "relatedness by" if hasattr(settings, "measure") or hasattr(settings, "feature_input") else "features are"
    notes = [f"{what} raw pixels: the default of the stream 'digits', which needs no weights"] if name == "pixels" else []
    return replace(settings, extractor=name), notes


def extractor_opener(environment: Environment, device: torch.device) -> Callable[[str, str], Extractor]:
    """Return a function that opens an extractor by its name and input policy, once each."""

    @cache
    def opened(name: str, feature_input: str) -> Extractor:
        return open_extractor(name, weights=environment.weights, download=environment.download, feature_input=feature_input, device=device)

    return opened


def identity_of(config: RunConfig, stream: Stream, environment: Environment) -> dict[str, Any]:
    """Return what must be equal for a run to be continued."""
    identity = {"version": STATE_VERSION, RECORDED: __version__} | flat(config) | {"stream images": stream.fingerprint()}
    if getattr(config.settings, "extractor", None) in READ_FROM_FILE and environment.weights is not None:
        identity["extractor weights"] = digest_file(environment.weights)
    return identity


def content_of(stream: Stream) -> Content | None:
    """Return what a stream is made of, whatever the seed draws from it (see `SpecStream.content`); None where it cannot say."""
    return Content.model_validate(stream.content()) if isinstance(stream, SpecStream) else None


def origin_of(content: Content | None, identity: Mapping[str, Any]) -> dict[str, Content | str | None]:
    """Return what a run's summary says of where its numbers come from: by it, runs that differ in their seed alone are known.

    Args:
        content: of its stream.
        identity: of the run.
    """
    return {"stream_content": content, "extractor_weights": identity.get("extractor weights")}


def digest_file(path: Path) -> str:
    """Return a checksum of a file of weights.

    Raises:
        LifelongError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise LifelongError(f"cannot read the weights {path}: {error.strerror}; give a safetensors file with --weights") from error
