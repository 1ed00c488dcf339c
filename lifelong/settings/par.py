"""The hyper-parameters of PAR: relatedness, sharing, allocation and search."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from lifelong.settings.base import setting
from lifelong.settings.extractor import ExtractorSettings
from lifelong.settings.sockets import MEASURES, REGULARIZERS

Variant = Literal[
    "par", "fixed", "fine", "coarse+fine", "regularization", "regularization-searched", "fixed+regularization", "fine+regularization"
]


@dataclass(frozen=True, kw_only=True)
class RelatednessSettings(ExtractorSettings):
    """How the distance of a new task to the groups of earlier ones is computed (PAR section 3.1, Eq. 2-6).

    Source: the paper; where it is silent or the authors' code differs, each field says so.
    """

    measure: Annotated[str, MEASURES] = setting("prototype-kl", "how far a task is from each earlier one (Eq. 2-4)", tunable=False)
    feature_split: Literal["valid", "train", "both"] = setting(
        "valid", "the split whose features give prototypes and distances (paper silent; authors' code: valid)"
    )
    leave_one_out: bool = setting(
        False, "leave a sample out of its own prototype in Eq. 2 (less biased for small tasks; the paper does not)"
    )
    few_images: Annotated[int, Ge(0)] = setting(
        0,
        "where a class has fewer images than this in feature_split, measure the task by all its training and validation images, and "
        "correct Eq. 2 for their number; 0: never (the paper)",
    )
    clamp: Literal["pair", "class", "none"] = setting(
        "pair", "clamp Eq. 4 at zero: its sum for a pair of tasks, each class before the sum (authors' code), or the group mean only"
    )
    zero_is_far: bool = setting(False, "read a distance of exactly zero as the largest, 1 (authors' code)")
    map_before_mean: bool = setting(False, "map each task's distance by Eq. 6 before the mean of Eq. 5 (authors' code)")
    group_reduce: Literal["mean", "max", "min"] = setting("mean", "how a group's task distances become one (Eq. 5: mean)")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Multinomial distribution learning of a cell (MDL; the paper leaves its details to a supplement, so the authors' code)."""

    search_epochs: Annotated[int, Ge(1)] = setting(100, "epochs of cell search per searched task")
    search_lr: Annotated[float, Gt(0)] = setting(0.01, "initial learning rate of the shared weights in the search (cosine to 1e-5)")
    search_step: Annotated[float, Gt(0)] = setting(0.01, "step of the probabilities of operations at each update of MDL")
    search_projection: Literal["simplex", "softmax"] = setting(
        "simplex", "back to probabilities after a step: clamp at zero and renormalize, or softmax (authors' code; flattens)"
    )
    search_sampling: Literal["epoch", "batch"] = setting("epoch", "how often an architecture is sampled")
    search_channels: Annotated[int, Ge(0)] = setting(0, "channels of the search network; 0: as init_channels (authors' code: always 64)")
    search_clip_norm: Annotated[float, Ge(0)] = setting(5.0, "gradient norm limit in the search; 0: none")
    search_bn: Literal["batch", "running"] = setting(
        "batch", "statistics by which batch norm judges a sampled network: of the batch, or running ones (authors' code)"
    )
    search_idle: Literal["rest", "move"] = setting(
        "rest",
        "operations that are not sampled stay as they are; or, once they have been, go on by momentum and weight decay (authors' code)",
    )
    search_ties: Literal["seed", "first"] = setting(
        "seed",
        "among operations or edges that the search leaves equally probable: draw by the seed, or take the first (authors' code: max-pools)",
    )


@dataclass(frozen=True, kw_only=True)
class PARSettings(RelatednessSettings, SearchSettings):
    """Hyper-parameters of PAR (Wang et al., CVPR 2023). Defaults are the paper's; the preset `authors-code` switches the rest."""

    alpha: Annotated[float, Ge(0)] = setting(0.5, "a group at distance <= alpha is joined: its expert is shared")
    beta: Annotated[float, Ge(0)] = setting(
        0.75, "at distance <= beta (and > alpha) the group's cell is reused in a new expert; beyond it a cell is searched"
    )
    variant: Variant = setting(
        "par",
        "the method, or an ablation of it (rows of the paper's Table 5): fixed cell, fine space, coarse + fine space, "
        "regularization only (with the fixed cell; or with a searched one, which is no row), and the first two with regularization",
        tunable=False,
    )
    fixed_cell: str = setting("DARTS_V1", "cell of the 'fixed' variants: DARTS_V1, DARTS_V2 or a printed genotype", tunable=False)
    init_channels: Annotated[int, Ge(1)] = setting(64, "channels C of an expert (constant through its cells)", tunable=False)
    cells: Annotated[int, Ge(1), Le(20)] = setting(
        4, "cells per expert; those at a third and two thirds reduce the resolution", tunable=False
    )
    reduce_bn: bool = setting(
        True, "apply the batch norm of factorized reductions (the authors' code makes it, and does not)", tunable=False
    )
    freeze_ratio: Annotated[float, Ge(0)] = setting(
        0.10, "a task with fewer training images than this share of its group's largest trains only its head (authors' code: 0.5)"
    )
    frozen_augment: bool = setting(
        False, "augment while only a head is trained, recomputing the frozen features every epoch (authors' code)"
    )
    regularizer: Annotated[str, REGULARIZERS] = setting(
        "distillation", "what keeps a shared expert at its earlier tasks while it learns another one (Eq. 7-9)", tunable=False
    )
    kd_weight: Annotated[float, Ge(0)] = setting(1.0, "lambda of Eq. 9: weight of the distillation loss (paper: no value)")
    temperature: Annotated[float, Gt(0)] = setting(2.0, "temperature of the distillation")
    train_old_heads: bool = setting(False, "train the heads of the group's earlier tasks while distilling (as LwF does)")
    tiny_task: Annotated[int, Ge(0)] = setting(
        0,
        "tasks of at most this many training images join the nearest group with an ample expert, whatever alpha "
        "(authors' code: 25; 0: off)",
    )
    tiny_task_ratio: Annotated[float, Gt(0)] = setting(
        10.0, "an expert is ample for a tiny task if it has learned a task this many times larger"
    )
    tiny_weight_decay: Annotated[float, Gt(0)] = setting(1.0, "factor on a tiny task's weight decay (authors' code: 10)")
    stop_reuse_early: bool = setting(True, "early stopping also when an expert is reused (authors' code: never there)")

    @property
    def fixed(self) -> bool:
        """Every expert has the fixed cell: nothing is searched."""
        return self.variant.startswith("fixed") or self.variant == "regularization"

    @property
    def coarse(self) -> bool:
        """The coarse space is on: the nearest group's cell may be reused."""
        return self.variant in ("par", "coarse+fine")

    @property
    def shares(self) -> Literal["related", "never", "always"]:
        """When an expert is shared: with related tasks (by alpha), never (allocation only) or always (one expert)."""
        if self.variant in ("regularization", "regularization-searched"):
            return "always"
        return "related" if self.variant == "par" or self.variant.endswith("+regularization") else "never"
