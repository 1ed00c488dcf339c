"""The hyper-parameters of the methods that PAR is compared with."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from lifelong.settings.base import setting
from lifelong.settings.sockets import BACKBONES

BatchNorm = Literal["shared", "per-task-stats", "per-task", "frozen"]

BATCH_NORM = (
    "batch norm of the shared network: one for all tasks; running statistics of each task's own; affine weights too;"
    " or statistics frozen after the first task"
)

BACKBONE = (
    "network: the light ResNet-18 of MNTDP; PAR's cell network with the cell DARTS_V1;"
    " the AlexNet of HAT (biases) or of GPM (batch norm, no biases), for images of at least 19 x 19 pixels; or timm:NAME (needs timm)"
)


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """The fixed network of a baseline."""

    backbone: Annotated[str, BACKBONES] = setting("light-resnet18", BACKBONE, tunable=False)
    init_channels: Annotated[int, Ge(1)] = setting(
        64, "channels of the network's first layer (the AlexNets grow wider, the others do not)", tunable=False
    )
    stem_pool: bool = setting(False, "max-pool after the stem of the light ResNet-18 (authors' code; 4x less compute)", tunable=False)
    start: Literal["torch", "kaiming"] = setting(
        "torch",
        "initial convolutions of the light ResNet-18: PyTorch's (MNTDP), or normal with variance 2 / outgoing connections (authors' code)",
    )


@dataclass(frozen=True, kw_only=True)
class SharedBackboneSettings(BackboneSettings):
    """The fixed network of a baseline whose tasks share one."""

    batch_norm: BatchNorm = setting("shared", BATCH_NORM, tunable=False)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(SharedBackboneSettings):
    """Finetune has no hyper-parameters but its network."""


@dataclass(frozen=True, kw_only=True)
class IndependentSettings(BackboneSettings):
    """Independent has no hyper-parameters but its network."""


@dataclass(frozen=True, kw_only=True)
class LwFSettings(SharedBackboneSettings):
    """Hyper-parameters of Learning without Forgetting (Li & Hoiem 2017)."""

    kd_weight: Annotated[float, Ge(0)] = setting(1.0, "weight of the distillation loss, summed over earlier tasks")
    temperature: Annotated[float, Gt(0)] = setting(2.0, "temperature of the distillation")
    train_old_heads: bool = setting(True, "train the heads of earlier tasks too, as the paper does")


@dataclass(frozen=True, kw_only=True)
class JointSettings(SharedBackboneSettings):
    """Joint has no hyper-parameters but its network, which starts anew at every task: it has no statistics to freeze."""

    batch_norm: Literal["shared", "per-task-stats", "per-task"] = setting(
        "shared",
        "batch norm of the shared network: one for all tasks; running statistics of each task's own; or affine weights too",
        tunable=False,
    )


@dataclass(frozen=True, kw_only=True)
class PenaltySettings(SharedBackboneSettings):
    """Hyper-parameters of a quadratic penalty on the shared weights."""

    penalty_weight: Annotated[float, Ge(0)] = setting(1.0, "lambda: weight of the quadratic penalty")


@dataclass(frozen=True, kw_only=True)
class EWCSettings(PenaltySettings):
    """Hyper-parameters of Elastic Weight Consolidation (Kirkpatrick et al. 2017; online: Schwarz et al. 2018)."""

    penalty_weight: Annotated[float, Ge(0)] = setting(1000.0, "lambda: half of it weights the quadratic penalty; goes with one `fisher`")
    penalty: Literal["separate", "online", "average"] = setting(
        "separate",
        "a penalty for each earlier task around its weights, or around the newest weights one with a running Fisher or with the mean of all"
        " tasks' (authors' code)",
        tunable=False,
    )
    gamma: Annotated[float, Ge(0), Le(1)] = setting(1.0, "what is left of earlier Fishers at a new task (online); 1: they add up")
    fisher: Literal["exact", "signs", "sampled", "empirical", "batched"] = setting(
        "signs",
        "estimator of the Fisher information: expectation over labels, the same by random signs, one drawn label, the true label,"
        " or batch size times the squared mean gradient of a batch",
    )
    fisher_samples: Annotated[int, Ge(0)] = setting(
        0, "training images that the Fisher information is estimated from (signs: 512 of them at most); 0: all"
    )


@dataclass(frozen=True, kw_only=True)
class MASSettings(PenaltySettings):
    """Hyper-parameters of Memory Aware Synapses (Aljundi et al. 2018)."""

    penalty_weight: Annotated[float, Ge(0)] = setting(1.0, "lambda: weight of the quadratic penalty; goes with one `importance`")
    importance: Literal["paper", "par-code"] = setting(
        "paper",
        "size of each image's gradient, added over tasks; or what PAR's code calls MAS: batch size times the squared gradient of a batch,"
        " averaged over tasks, with half the weight",
        tunable=False,
    )


@dataclass(frozen=True, kw_only=True)
class ReplaySettings(SharedBackboneSettings):
    """What methods that keep images of earlier tasks have in common."""

    memory_per_class: Annotated[int, Ge(1)] = setting(15, "images kept of each class of an earlier task (er: by the ring)", tunable=False)
    memory_batch: Annotated[int, Ge(1)] = setting(64, "kept images that are drawn at each training step, as many as there are at most")


@dataclass(frozen=True, kw_only=True)
class ERSettings(ReplaySettings):
    """Hyper-parameters of Experience Replay (Chaudhry et al. 2019)."""

    memory_policy: Literal["ring", "reservoir"] = setting(
        "ring", "what is kept: memory_per_class images of each class, or memory_size images of all that were seen", tunable=False
    )
    memory_size: Annotated[int, Ge(1)] = setting(1500, "images kept in all (reservoir)", tunable=False)


@dataclass(frozen=True, kw_only=True)
class AGEMSettings(ReplaySettings):
    """Hyper-parameters of Averaged Gradient Episodic Memory (Chaudhry et al. 2019)."""


PLAIN_SGD = (
    "train by plain SGD, as in the paper: no weight decay, no momentum but lr / (1 - momentum) for a rate;"
    " if false, as the training settings say (what is held is held all the same)"
)


@dataclass(frozen=True, kw_only=True)
class GPMSettings(SharedBackboneSettings):
    """Hyper-parameters of Gradient Projection Memory (Saha et al. 2021)."""

    batch_norm: BatchNorm = setting("per-task-stats", BATCH_NORM, tunable=False)
    gpm_threshold: Annotated[float, Gt(0), Le(1)] = setting(
        0.97, "epsilon: share of the squared norm of a layer's inputs that the directions kept of the first task carry"
    )
    gpm_threshold_step: Annotated[float, Ge(0), Le(1)] = setting(0.003, "what epsilon grows by with each of the next nine tasks, up to 1")
    plain_sgd: bool = setting(True, PLAIN_SGD, tunable=False)


@dataclass(frozen=True, kw_only=True)
class HATSettings(SharedBackboneSettings):
    """Hyper-parameters of Hard Attention to the Task (Serrà et al. 2018)."""

    backbone: Literal["light-resnet18", "alexnet-hat", "alexnet-gpm"] = setting(
        "light-resnet18", f"{BACKBONE} (PAR's cell network has no gates)", tunable=False
    )
    batch_norm: BatchNorm = setting("per-task", BATCH_NORM, tunable=False)
    sparsity_weight: Annotated[float, Ge(0)] = setting(0.75, "c: weight of the penalty on units no earlier task uses (paper: 0.1 to 4)")
    s_max: Annotated[float, Gt(1)] = setting(400.0, "largest scale of the gates (paper: 25 to 800)")
    binary_masks: bool = setting(
        True,
        "cut the masks of learned tasks to 0 or 1, so that no answer for them changes; if false, they are the gates at s_max",
        tunable=False,
    )
    plain_sgd: bool = setting(True, PLAIN_SGD, tunable=False)


@dataclass(frozen=True, kw_only=True)
class CATSettings(HATSettings):
    """Hyper-parameters of CAT (Ke et al. 2020): those of HAT, and of the attention over similar tasks."""

    attention_weight: Annotated[float, Ge(0)] = setting(1.0, "weight of the cross-entropy of the head that attends to similar tasks")
    attention_heads: Annotated[int, Ge(1)] = setting(
        5, "heads of the attention; at most, since they must divide the number of features (5 of 2000, 4 of 64)", tunable=False
    )
