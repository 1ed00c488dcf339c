"""The hyper-parameters of the methods that mask the weights of one network."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Lt

from lifelong.settings.base import setting
from lifelong.settings.baselines import SharedBackboneSettings

BatchNorm = Literal["per-task-stats", "per-task", "frozen"]

BATCH_NORM = (
    "batch norm of the shared network: running statistics per task; statistics and affine weights per task; or statistics frozen after"
    " the first task. Affine weights that tasks share, and biases, are fixed after the first task"
)

SCORE_SCALE = (
    "initial scores of weights, relative to PyTorch's initial weights: the smaller, the faster a mask changes in training by SGD"
    " (the paper has 1, and Adam)"
)


@dataclass(frozen=True, kw_only=True)
class MaskSettings(SharedBackboneSettings):
    """Settings of all methods that mask weights."""

    batch_norm: BatchNorm = setting("per-task", BATCH_NORM, tunable=False)
    use_weight_decay: bool = setting(
        False, "train with the weight decay of the training settings; if false, with none, as in the paper (earlier tasks stay protected)"
    )


@dataclass(frozen=True, kw_only=True)
class PackNetSettings(MaskSettings):
    """Hyper-parameters of PackNet (Mallya & Lazebnik 2018)."""

    pruned_share: Annotated[float, Gt(0), Lt(1)] = setting(
        0.75, "share of a task's own weights that are pruned in each layer, and left to later tasks (paper: 0.5 and 0.75)"
    )
    retrain_epochs: Annotated[float, Gt(0)] = setting(0.5, "epochs of training after pruning, as a share of those before")
    retrain_lr: Annotated[float, Gt(0)] = setting(0.1, "initial learning rate after pruning, as a share of that before")


@dataclass(frozen=True, kw_only=True)
class WSNSettings(MaskSettings):
    """Hyper-parameters of Winning SubNetworks (Kang et al. 2022)."""

    masked_share: Annotated[float, Gt(0), Lt(1)] = setting(
        0.5, "share of each layer's weights that the mask of a task leaves out (the code's example: 0.5)"
    )
    score_scale: Annotated[float, Gt(0)] = setting(0.01, SCORE_SCALE)


@dataclass(frozen=True, kw_only=True)
class SupSupSettings(MaskSettings):
    """Hyper-parameters of Supermasks in Superposition (Wortsman et al. 2020)."""

    batch_norm: BatchNorm = setting(
        "per-task-stats", f"{BATCH_NORM.partition('. ')[0]}. Affine weights that tasks share, and biases, are not trained", tunable=False
    )
    density_scale: Annotated[float, Gt(0)] = setting(
        32.0, "s: a mask keeps the share s (outputs + inputs) / weights of each layer, at most a half (paper: 1 to 32)"
    )
    score_scale: Annotated[float, Gt(0)] = setting(0.01, SCORE_SCALE)
    score_start: Literal["fresh", "mean"] = setting(
        "fresh", "initial scores of a task: random, or the mean of the scores of all earlier tasks (which is kept)", tunable=False
    )
