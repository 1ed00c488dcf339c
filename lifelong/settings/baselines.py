"""The hyper-parameters of the methods that PAR is compared with."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from lifelong.settings.base import setting
from lifelong.settings.sockets import BACKBONES

BatchNorm = Literal["shared", "per-task-stats", "per-task", "frozen"]

BATCH_NORM = (
    "batch norm of the shared network: shared by all tasks; running statistics per task; statistics and affine weights per task;"
    " or statistics frozen after the first task"
)

BACKBONE = (
    "network architecture: the light ResNet-18 of MNTDP; PAR's cell network with the cell DARTS_V1;"
    " the AlexNet of HAT (biases) or of GPM (batch norm, no biases), for images of at least 19 x 19 pixels; or timm:NAME (needs timm)"
)


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """The fixed network of a baseline."""

    backbone: Annotated[str, BACKBONES] = setting("light-resnet18", BACKBONE, tunable=False)
    init_channels: Annotated[int, Ge(1)] = setting(64, "channels of the first layer (the AlexNets widen in later layers)", tunable=False)
    stem_pool: bool = setting(False, "add a max-pool after the stem of the light ResNet-18 (authors' code; 4x less compute)", tunable=False)
    start: Literal["torch", "kaiming"] = setting(
        "torch",
        "initialization of the light ResNet-18's convolutions: PyTorch's (MNTDP), or normal with variance 2 / fan-out (authors' code)",
    )


@dataclass(frozen=True, kw_only=True)
class SharedBackboneSettings(BackboneSettings):
    """The fixed network of a baseline that shares it between tasks."""

    batch_norm: BatchNorm = setting("shared", BATCH_NORM, tunable=False)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(SharedBackboneSettings):
    """Settings of Finetune: only its network."""


@dataclass(frozen=True, kw_only=True)
class IndependentSettings(BackboneSettings):
    """Settings of Independent: only its network."""


@dataclass(frozen=True, kw_only=True)
class LwFSettings(SharedBackboneSettings):
    """Hyper-parameters of Learning without Forgetting (Li & Hoiem 2017)."""

    kd_weight: Annotated[float, Ge(0)] = setting(1.0, "weight of the distillation loss, which is summed over earlier tasks")
    temperature: Annotated[float, Gt(0)] = setting(2.0, "distillation temperature")
    train_old_heads: bool = setting(True, "also train the heads of earlier tasks, as in the paper")


@dataclass(frozen=True, kw_only=True)
class JointSettings(SharedBackboneSettings):
    """Settings of Joint: only its network, which restarts from scratch at every task and so has no statistics to freeze."""

    batch_norm: Literal["shared", "per-task-stats", "per-task"] = setting(
        "shared",
        "batch norm of the shared network: shared by all tasks; running statistics per task; or statistics and affine weights per task",
        tunable=False,
    )


@dataclass(frozen=True, kw_only=True)
class PenaltySettings(SharedBackboneSettings):
    """Hyper-parameters of a quadratic penalty on the shared weights."""

    penalty_weight: Annotated[float, Ge(0)] = setting(1.0, "lambda: weight of the quadratic penalty")


@dataclass(frozen=True, kw_only=True)
class EWCSettings(PenaltySettings):
    """Hyper-parameters of Elastic Weight Consolidation (Kirkpatrick et al. 2017; online: Schwarz et al. 2018)."""

    penalty_weight: Annotated[float, Ge(0)] = setting(
        1000.0, "lambda: the quadratic penalty is weighted by lambda / 2; its scale depends on `fisher`"
    )
    penalty: Literal["separate", "online", "average"] = setting(
        "separate",
        "form of the penalty: one for each earlier task around its weights, or a single one around the newest weights with a running"
        " Fisher (online) or the mean of all tasks' Fishers (average, authors' code)",
        tunable=False,
    )
    gamma: Annotated[float, Ge(0), Le(1)] = setting(1.0, "decay factor of earlier Fishers at each new task (online); 1: they add up")
    fisher: Literal["exact", "signs", "sampled", "empirical", "batched"] = setting(
        "signs",
        "estimator of the Fisher information: expectation over labels (exact), its estimate from random signs, one sampled label, the true"
        " label (empirical), or batch size times the squared mean gradient of a batch",
    )
    fisher_samples: Annotated[int, Ge(0)] = setting(
        0, "number of training images used to estimate the Fisher information (signs: at most 512); 0: all"
    )


@dataclass(frozen=True, kw_only=True)
class MASSettings(PenaltySettings):
    """Hyper-parameters of Memory Aware Synapses (Aljundi et al. 2018)."""

    penalty_weight: Annotated[float, Ge(0)] = setting(1.0, "lambda: weight of the quadratic penalty; its scale depends on `importance`")
    importance: Literal["paper", "par-code"] = setting(
        "paper",
        "weight importance: magnitude of each image's gradient, summed over tasks; or PAR's code: batch size times the squared gradient"
        " of a batch, averaged over tasks, with half the penalty weight",
        tunable=False,
    )


@dataclass(frozen=True, kw_only=True)
class ReplaySettings(SharedBackboneSettings):
    """Settings shared by methods that store images of earlier tasks."""

    memory_per_class: Annotated[int, Ge(1)] = setting(
        15, "images stored per class of earlier tasks (er: with memory_policy ring)", tunable=False
    )
    memory_batch: Annotated[int, Ge(1)] = setting(64, "stored images drawn at each training step (fewer if fewer are stored)")


@dataclass(frozen=True, kw_only=True)
class ERSettings(ReplaySettings):
    """Hyper-parameters of Experience Replay (Chaudhry et al. 2019)."""

    memory_policy: Literal["ring", "reservoir"] = setting(
        "ring", "which images to store: memory_per_class of each class, or memory_size of all images seen", tunable=False
    )
    memory_size: Annotated[int, Ge(1)] = setting(1500, "total number of stored images (reservoir)", tunable=False)


@dataclass(frozen=True, kw_only=True)
class AGEMSettings(ReplaySettings):
    """Hyper-parameters of Averaged Gradient Episodic Memory (Chaudhry et al. 2019)."""


PLAIN_SGD = (
    "train with plain SGD, as in the paper: no weight decay, and learning rate lr / (1 - momentum) instead of momentum;"
    " if false, use the training settings (protected directions or units stay protected)"
)


@dataclass(frozen=True, kw_only=True)
class GPMSettings(SharedBackboneSettings):
    """Hyper-parameters of Gradient Projection Memory (Saha et al. 2021)."""

    batch_norm: BatchNorm = setting("per-task-stats", BATCH_NORM, tunable=False)
    gpm_threshold: Annotated[float, Gt(0), Le(1)] = setting(
        0.97, "epsilon: share of the squared norm of a layer's inputs that the stored directions of the first task must explain"
    )
    gpm_threshold_step: Annotated[float, Ge(0), Le(1)] = setting(0.003, "increase of epsilon with each of the next nine tasks, up to 1")
    plain_sgd: bool = setting(True, PLAIN_SGD, tunable=False)


@dataclass(frozen=True, kw_only=True)
class HATSettings(SharedBackboneSettings):
    """Hyper-parameters of Hard Attention to the Task (Serrà et al. 2018)."""

    backbone: Literal["light-resnet18", "alexnet-hat", "alexnet-gpm"] = setting(
        "light-resnet18", f"{BACKBONE} (PAR's cell network has no gates)", tunable=False
    )
    batch_norm: BatchNorm = setting("per-task", BATCH_NORM, tunable=False)
    sparsity_weight: Annotated[float, Ge(0)] = setting(
        0.75, "c: weight of the penalty on units that no earlier task uses (paper: 0.1 to 4)"
    )
    s_max: Annotated[float, Gt(1)] = setting(400.0, "largest scale of the gates (paper: 25 to 800)")
    binary_masks: bool = setting(
        True,
        "binarize the masks of learned tasks, so that predictions for them never change; if false, masks are the gates at s_max",
        tunable=False,
    )
    plain_sgd: bool = setting(True, PLAIN_SGD, tunable=False)


@dataclass(frozen=True, kw_only=True)
class CATSettings(HATSettings):
    """Hyper-parameters of CAT (Ke et al. 2020): those of HAT, and of the attention over similar tasks."""

    attention_weight: Annotated[float, Ge(0)] = setting(1.0, "cross-entropy weight of the head that attends to similar tasks")
    attention_heads: Annotated[int, Ge(1)] = setting(
        5, "largest number of attention heads, which must divide the number of features (5 of 2000, 4 of 64)", tunable=False
    )
