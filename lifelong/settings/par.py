"""The hyper-parameters of PAR: relatedness, sharing, allocation and search."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from lifelong.settings.base import setting
from lifelong.settings.extractor import ExtractorSettings
from lifelong.settings.pretrained import ExpertSettings
from lifelong.settings.sockets import ALLOCATIONS, DECISIONS, MEASURES, REGULARIZERS

Variant = Literal[
    "par", "fixed", "fine", "coarse+fine", "regularization", "regularization-searched", "fixed+regularization", "fine+regularization"
]


@dataclass(frozen=True, kw_only=True)
class RelatednessSettings(ExtractorSettings):
    """How the distance of a new task to the groups of earlier ones is computed (PAR section 3.1, Eq. 2-6).

    Source: the paper; where it is silent or the authors' code differs, each field says so.
    """

    measure: Annotated[str, MEASURES] = setting(
        "prototype-kl", "measure of how far a task is from each earlier one (Eq. 2-4)", tunable=False
    )
    measure_neighbors: Annotated[int, Ge(1)] = setting(
        5, "number of nearest neighbors of the measures knn-kl (Eq. 1: the k-th) and nearest-neighbors (that vote)"
    )
    keep_features: bool = setting(
        False, "keep the features of every task's images, which the measure knn-kl compares with; they count as memory", tunable=False
    )
    feature_split: Literal["valid", "train", "both"] = setting(
        "valid", "split whose features give prototypes and divergences (not stated in the paper; authors' code: valid)"
    )
    leave_one_out: bool = setting(
        False, "leave each sample out of its own prototype in Eq. 2 (less biased for small tasks; not in the paper)"
    )
    few_images: Annotated[int, Ge(0)] = setting(
        0,
        "if a class has fewer images than this in feature_split, measure the task on all its training and validation images, and "
        "correct Eq. 2 for their number; 0: never (the paper)",
    )
    clamp: Literal["pair", "class", "none"] = setting(
        "pair",
        "where to clamp Eq. 4 at zero: the sum for a pair of tasks, each class before the sum (authors' code), or only the group mean",
    )
    zero_is_far: bool = setting(False, "treat a distance of zero as the largest, 1 (authors' code)")
    map_before_mean: bool = setting(False, "apply Eq. 6 to each task's divergence before the mean of Eq. 5 (authors' code)")
    group_reduce: Literal["mean", "max", "min"] = setting("mean", "how the divergences from a group's tasks are combined (Eq. 5: mean)")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Multinomial distribution learning of a cell (MDL; details from the authors' code, since the paper leaves them to a supplement)."""

    search_epochs: Annotated[int, Ge(1)] = setting(100, "epochs of cell search per searched task")
    search_lr: Annotated[float, Gt(0)] = setting(0.01, "initial learning rate of the shared weights during search (cosine to 1e-5)")
    search_step: Annotated[float, Gt(0)] = setting(0.01, "step size of the operation probabilities at each MDL update")
    search_projection: Literal["simplex", "softmax"] = setting(
        "simplex", "how a step is projected back to probabilities: clamp at zero and renormalize, or softmax (authors' code; flattens)"
    )
    search_sampling: Literal["epoch", "batch"] = setting("epoch", "how often an architecture is sampled")
    search_channels: Annotated[int, Ge(0)] = setting(0, "channels of the search network; 0: as init_channels (authors' code: always 64)")
    search_clip_norm: Annotated[float, Ge(0)] = setting(5.0, "gradient norm limit during search; 0: none")
    search_bn: Literal["batch", "running"] = setting(
        "batch", "batch-norm statistics used to evaluate a sampled network: those of the batch, or running ones (authors' code)"
    )
    search_idle: Literal["rest", "move"] = setting(
        "rest",
        "weights of operations that are not sampled: left unchanged, or moved by momentum and weight decay once sampled (authors' code)",
    )
    search_ties: Literal["seed", "first"] = setting(
        "seed",
        "choice among equally probable operations or edges: drawn with the seed, or the first (authors' code: max-pools)",
    )


@dataclass(frozen=True, kw_only=True)
class PARSettings(RelatednessSettings, SearchSettings, ExpertSettings):
    """Hyper-parameters of PAR (Wang et al., CVPR 2023). Defaults are the paper's; the preset `authors-code` switches the rest."""

    alpha: Annotated[float, Ge(0)] = setting(0.5, "largest distance at which a task joins a group and shares its expert")
    beta: Annotated[float, Ge(0)] = setting(
        0.75, "largest distance (above alpha) at which a new expert reuses the group's cell; beyond it a cell is searched"
    )
    decision: Annotated[str, DECISIONS] = setting(
        "thresholds", "rule by which a task shares the expert of related ones, or gets its own (paper: thresholds)", tunable=False
    )
    share_z: Annotated[float, Gt(0)] = setting(2.0, "largest z at which a task joins a group (decision z-score)")
    share_outlier: Annotated[float, Gt(0)] = setting(4.0, "largest |z| of a batch at which a task joins a group (decision outlier)")
    share_margin: Annotated[float, Ge(0), Le(1)] = setting(
        0.01, "validation accuracy that sharing an expert may cost (decisions validation-gain, calibrated and oracle)"
    )
    calibration_tasks: Annotated[int, Ge(1)] = setting(
        3, "tasks after the first that are learned both ways, to set the threshold by (decision calibrated)"
    )
    candidates: Annotated[int, Ge(1)] = setting(
        10, "random cells of which the allocations best-of-k, most-parameters, synflow, naswot, zico and az-nas choose one"
    )
    candidate_epochs: Annotated[int, Ge(1)] = setting(2, "epochs for which the allocation best-of-k trains each of its random cells")
    starts: Annotated[int, Ge(1)] = setting(2, "nearest groups from whose experts the allocation best-start tries to start a new one")
    variant: Variant = setting(
        "par",
        "PAR or an ablation (rows of the paper's Table 5): fixed cell, fine space, coarse + fine space, "
        "regularization only (with the fixed cell; or with a searched one, not in the table), and the first two with regularization",
        tunable=False,
    )
    allocation: Annotated[str, ALLOCATIONS] = setting(
        "variant",
        "expert of a task that shares none: of the cell that the variant says, or always of a searched, the fixed, a random, the "
        "nearest group's or a cheaply chosen cell, or another network (docs/allocations.md; the variant then only says which tasks share)",
        tunable=False,
    )
    fixed_cell: str = setting("DARTS_V1", "cell of the 'fixed' variants: DARTS_V1, DARTS_V2 or a printed genotype", tunable=False)
    init_channels: Annotated[int, Ge(1)] = setting(64, "channels C of an expert (constant through its cells)", tunable=False)
    cells: Annotated[int, Ge(1), Le(20)] = setting(
        4, "number of cells per expert; those at one third and two thirds reduce the resolution", tunable=False
    )
    reduce_bn: bool = setting(
        True, "apply the batch norm of factorized reductions (the authors' code creates but does not apply it)", tunable=False
    )
    freeze_ratio: Annotated[float, Ge(0)] = setting(
        0.10, "train only the head of a task with fewer training images than this share of its group's largest task (authors' code: 0.5)"
    )
    frozen_augment: bool = setting(False, "augment while training only a head, recomputing the frozen features every epoch (authors' code)")
    regularizer: Annotated[str, REGULARIZERS] = setting(
        "distillation", "regularizer that preserves a shared expert's earlier tasks while it learns a new one (Eq. 7-9)", tunable=False
    )
    kd_weight: Annotated[float, Ge(0)] = setting(1.0, "lambda of Eq. 9: weight of the distillation loss (paper: no value)")
    temperature: Annotated[float, Gt(0)] = setting(2.0, "distillation temperature")
    train_old_heads: bool = setting(False, "also train the heads of the group's earlier tasks while distilling (as LwF does)")
    tiny_task: Annotated[int, Ge(0)] = setting(
        0,
        "largest number of training images of a tiny task, which joins the nearest group with an ample expert regardless of alpha "
        "(authors' code: 25; 0: off)",
    )
    tiny_task_ratio: Annotated[float, Gt(0)] = setting(
        10.0, "size ratio that makes an expert ample: it has learned a task this many times larger than the tiny one"
    )
    tiny_weight_decay: Annotated[float, Gt(0)] = setting(1.0, "weight-decay factor for tiny tasks (authors' code: 10)")
    stop_reuse_early: bool = setting(True, "also stop early when an expert is reused (authors' code: never)")

    @property
    def fixed(self) -> bool:
        """Whether every expert has the fixed cell, without search, because the variant says so."""
        return self.allocation == "variant" and (self.variant.startswith("fixed") or self.variant == "regularization")

    @property
    def coarse(self) -> bool:
        """Whether the coarse space is on: the nearest group's cell may be reused within beta."""
        return self.allocation == "variant" and self.variant in ("par", "coarse+fine")

    @property
    def shares(self) -> Literal["related", "never", "always"]:
        """When an expert is shared: with related tasks (by alpha), never (allocation only) or always (one expert)."""
        if self.variant in ("regularization", "regularization-searched"):
            return "always"
        return "related" if self.variant == "par" or self.variant.endswith("+regularization") else "never"
