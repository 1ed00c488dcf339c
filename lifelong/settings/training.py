"""Training settings of every method: optimizer, schedule, length."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from lifelong.settings.base import setting

Precision = Literal["auto", "float32", "tf32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of `lifelong.training.fit`, the same for every method.

    Source: PAR section 4.1 (SGD, momentum, rate, cosine, weight-decay grid); where the paper is silent, the authors' code.
    """

    epochs: Annotated[int, Ge(1)] = setting(100, "training epochs per task")
    batch_size: Annotated[int, Ge(2)] = setting(64, "images per training step")
    lr: Annotated[float, Gt(0)] = setting(0.01, "initial learning rate of SGD")
    momentum: Annotated[float, Ge(0), Lt(1)] = setting(0.9, "momentum of SGD")
    weight_decay: Annotated[float, Ge(0)] = setting(0.003, "weight decay of SGD, coupled as an L2 penalty")
    weight_decay_grid: tuple[Annotated[float, Ge(0)], ...] = setting(
        (), "weight decays to choose from for each task by validation accuracy (paper: 0.0003 0.001 0.003 0.01); overrides weight_decay"
    )
    schedule: Literal["cosine", "plateau"] = setting(
        "cosine", "learning-rate schedule: cosine to zero, or cut when the validation accuracy reaches a plateau"
    )
    patience: Annotated[int, Ge(0)] = setting(
        20, "epochs without better validation accuracy before training stops (cosine) or the rate is cut (plateau); 0: never"
    )
    plateau_factor: Annotated[float, Gt(0), Lt(1)] = setting(0.1, "factor by which the learning rate is cut (plateau)")
    min_lr: Annotated[float, Ge(0)] = setting(1e-6, "lowest learning rate (plateau)")
    clip_norm: Annotated[float, Ge(0)] = setting(10.0, "largest gradient norm, to which larger gradients are scaled down; 0: no clipping")
    augment: bool = setting(True, "augment training images (crop, flip, jitter) according to the task's policy")
    precision: Precision = setting(
        "auto",
        "precision of forward passes, losses and gradients in training: float32, tf32 (NVIDIA Ampere or newer), bf16 (autocast); "
        "auto: float32. Statistics, distances and accuracies always stay in float32 or float64",
        tunable=False,
    )
    compile: bool = setting(
        False,
        "compile networks with torch.compile (CUDA only): takes about a minute to start, and pays off in long trainings",
        tunable=False,
    )
