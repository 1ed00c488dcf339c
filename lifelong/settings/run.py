"""What decides a run's numbers, and what only says where things are."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from lifelong.settings.device import Device
from lifelong.settings.training import TrainingSettings
from lifelong.settings.tuning import TuningSettings

Preset = Literal["paper", "authors-code", "quick"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the numbers of a run.

    Attributes:
        stream: a stream's name, or the path of a TOML file.
        method: a registered method's name.
        seed: of the stream's draws, the initial weights and every other random number.
        preset: where the settings that were not given came from.
        training: how networks are trained.
        settings: the method's hyper-parameters.
        tuning: what is chosen for each task by its validation images; None: nothing, all is as `training` and `settings` say.
    """

    stream: str
    method: str
    seed: int
    preset: Preset
    training: TrainingSettings
    settings: Any
    tuning: TuningSettings | None = None

    def with_values(self, values: Mapping[str, Any]) -> "RunConfig":
        """The same with other values of some settings of training or of the method, by key."""
        training, settings = (
            replace(group, **{field.name: values[field.name] for field in fields(group) if field.name in values})
            for group in (self.training, self.settings)
        )
        return replace(self, training=training, settings=settings)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where things are on this machine.

    Attributes:
        data: folder with one folder per image source; None: none.
        weights: file with the extractor's weights; None: none.
        device: where to compute; a name that `lifelong.settings.device.parse_device` knows.
        threads: threads of the processor; 0: one for images of up to 16 pixels a side, all cores for larger ones.
        at_once: how many runs share the cores; set by a sweep.
        save_every: seconds between two saves of the computation under way.
        download: whether sources and weights that are missing may be fetched from the hub.
        skip_broken: leave out images that cannot be used, instead of failing.
        observers: names of registered observers that are told how far a run has come.
    """

    data: Path | None = None
    weights: Path | None = None
    device: Device = "auto"
    threads: int = 0
    at_once: int = 1
    save_every: float = 5.0
    download: bool = False
    skip_broken: bool = False
    observers: tuple[str, ...] = ()
