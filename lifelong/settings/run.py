"""What determines a run's numbers, and the environment that does not."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Ge

from lifelong.errors import LifelongError, near_miss
from lifelong.settings.arguments import Count, Place, Seconds, Threads, argument, checked, hints_of
from lifelong.settings.device import Device, parse_device
from lifelong.settings.sockets import OBSERVERS
from lifelong.settings.training import TrainingSettings
from lifelong.settings.tuning import TuningSettings

KEEP_VERSIONS = 20
"""Versions that a run keeps, at least, unless it is told otherwise: enough to go back, and few networks."""

Preset = Literal["paper", "authors-code", "quick", "practical"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines the numbers of a run.

    Attributes:
        stream: a stream's name or address, or the path of a TOML file.
        method: a registered method's name.
        seed: random seed of the stream's draws, the initial weights and everything else.
        preset: source of the settings that were not given.
        training: how networks are trained.
        settings: the method's hyper-parameters.
        tuning: what is tuned for each task on its validation images; None: nothing.
    """

    stream: str
    method: str
    seed: int
    preset: Preset
    training: TrainingSettings
    settings: Any
    tuning: TuningSettings | None = None

    def with_values(self, values: Mapping[str, Any]) -> "RunConfig":
        """Return a copy with other values of some settings of training or of the method, by key."""
        training, settings = (
            replace(group, **{field.name: values[field.name] for field in fields(group) if field.name in values})
            for group in (self.training, self.settings)
        )
        return replace(self, training=training, settings=settings)


@dataclass(frozen=True, kw_only=True, init=False)
class Environment:
    """Where data, weights and the device are, and how a run uses this machine; nothing here changes a run's numbers.

    Every function that takes an `environment` also takes these fields as keyword arguments: `lifelong.run("digits", device="cpu")` is
    short for `lifelong.run("digits", environment=lifelong.Environment(device="cpu"))`.

    Attributes:
        data: folder with one folder per image source; by default the variable LIFELONG_DATA.
        weights: file with the weights of the feature extractor; by default the variable LIFELONG_WEIGHTS.
        device: "cpu", "cuda" (first GPU; parallel runs take turns over all), "cuda:1" (second GPU), "mps" (Apple GPU), or "auto" (the
            first available of cuda, mps and cpu).
        download: download missing images and weights from the Hugging Face Hub; needs the extra ``lifelong[hub]``.
        threads: CPU threads; 0: automatic (OMP_NUM_THREADS, else 1 for images up to 16×16, else all cores).
        save_every: seconds between saves of the computation in progress.
        keep_versions: number of versions that a run keeps in any case, to be put back; earlier ones go when they take much; 0: all.
        skip_broken: skip unusable images instead of failing.
        tensorboard: also write event files, to ``tensorboard`` in the run directory; needs the extra ``lifelong[tensorboard]``.
        observe: names of observers that are told how far a run has come: "tensorboard", "wandb", "mlflow", and those added by
            `register_observer`.
        at_once: number of runs that share the cores; set by a sweep.

    Raises:
        LifelongError: a value is not usable; the message says which, and what is accepted.
    """

    data: Path | None = None
    weights: Path | None = None
    device: Device = "auto"
    download: bool = False
    threads: int = 0
    save_every: float = 5.0
    keep_versions: int = KEEP_VERSIONS
    skip_broken: bool = False
    tensorboard: bool = False
    observe: tuple[str, ...] = ()
    at_once: int = 1

    @checked
    def __init__(
        self,
        *,
        data: Place | None = None,
        weights: Place | None = None,
        device: Device = "auto",
        download: bool = False,
        threads: Threads = 0,
        save_every: Seconds = 5.0,
        keep_versions: Count = KEEP_VERSIONS,
        skip_broken: bool = False,
        tensorboard: bool = False,
        observe: Sequence[str] = (),
        at_once: Annotated[int, Ge(1)] = 1,
    ) -> None:
        parse_device(device)
        for name in observe:
            OBSERVERS.entry(name)
        places = {"data": _place(data, "LIFELONG_DATA"), "weights": _place(weights, "LIFELONG_WEIGHTS")}
        use = {"device": device, "download": download, "threads": threads, "save_every": save_every, "skip_broken": skip_broken}
        use |= {"keep_versions": keep_versions}
        told = {"tensorboard": tensorboard, "observe": tuple(observe)}
        # Frozen: a dataclass sets its fields like this, too.
        vars(self).update(places | use | told, at_once=at_once)

    def absolute(self) -> "Environment":
        """Return the same with absolute paths, for a process that may change its working directory."""
        data, weights = (None if path is None else path.absolute() for path in (self.data, self.weights))
        return replace(self, data=data, weights=weights)

    @property
    def observers(self) -> tuple[str, ...]:
        """Names of all observers, each once."""
        return tuple(dict.fromkeys([*self.observe, *(["tensorboard"] if self.tensorboard else [])]))


class EnvironmentOptions(TypedDict, total=False):
    """The fields of an `Environment` that a function takes as keyword arguments."""

    data: Place | None
    weights: Place | None
    device: Device
    download: bool
    threads: Threads
    save_every: Seconds
    keep_versions: Count
    skip_broken: bool
    tensorboard: bool
    observe: Sequence[str]


def split_options(function: str, environment: Environment | None, given: Mapping[str, Any]) -> tuple[Environment, dict[str, Any]]:
    """Part keyword arguments into the environment and the rest.

    Args:
        function: whose arguments they are, for messages; empty: they are flags.
        environment: whose fields hold where none is given; None: those of `Environment()`.
        given: the keyword arguments. A field of the environment overrides the one of `environment`.

    Returns:
        The environment, and what is no field of it, such as hyper-parameters.

    Raises:
        LifelongError: a field's value is not usable.
    """
    hints = hints_of(EnvironmentOptions)
    options = {name: argument(function, name, hints[name], value) for name, value in given.items() if name in hints}
    return replace(environment or Environment(), **options), {name: value for name, value in given.items() if name not in hints}


def environment_of(function: str, environment: Environment | None, options: Mapping[str, Any]) -> Environment:
    """Return the environment that a function is given, which takes no other keyword arguments.

    Args:
        function, environment: see `split_options`.
        options: the keyword arguments.

    Raises:
        LifelongError: a field's value is not usable, or there is no such field.
    """
    place, rest = split_options(function, environment, options)
    for name in rest:
        raise LifelongError(f"{function}: there is no argument '{name}'{near_miss(name, EnvironmentOptions.__annotations__)}")
    return place


def _place(given: Place | None, variable: str) -> Path | None:
    place = given if given is not None else os.environ.get(variable) or None
    return None if place is None else Path(place)
