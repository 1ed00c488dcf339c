"""What determines a run's numbers, and the environment that does not."""

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
    """Everything that determines the numbers of a run.

    Attributes:
        stream: a stream's name, or the path of a TOML file.
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


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Paths, weights, device and other properties of this machine.

    Attributes:
        data: folder with one folder per image source; None: none.
        weights: file with the extractor's weights; None: none.
        device: device name; see `lifelong.settings.device.parse_device`.
        threads: CPU threads; 0: automatic (OMP_NUM_THREADS, else 1 for images up to 16×16, else all cores).
        at_once: number of runs that share the cores; set by a sweep.
        save_every: seconds between saves of the computation in progress.
        download: whether to download missing sources and weights from the Hugging Face Hub.
        skip_broken: skip unusable images instead of failing.
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
