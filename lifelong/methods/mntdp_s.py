"""MNTDP-S, the stochastic variant of MNTDP (Veniat, Denoyer & Ranzato, ICLR 2021, arXiv 2012.12631): a distribution over paths is learned.

Paths and candidates are defined in `mntdp.py`. Paths are drawn, one for each image, from a distribution whose logits alpha
(`path_distribution.py`) are learned by REINFORCE together with the weights of all new modules theta:

    min over theta, alpha of  E_(x, y) E_(path ~ p_alpha) CE(path_theta(x), y)
    gradient of alpha  =  -mean of (R - baseline) d log p_alpha(path) / d alpha,   R = -CE

Weights and distribution learn in turn from two halves of the training images (`reinforce.py`). Once the distribution has decided, or
after half of the epochs, the most probable path is taken, and its weights are trained for the epochs that are left.

Choices where the paper is silent, or where its code is not followed:

* The baseline is the mean reward of the other images of the batch, not of all: the estimate has no bias then.
* Decided is an entropy below 0.001, taken over the whole distribution at an epoch's end; the code takes a mean over drawn choices.
* The learning rate is constant in the search and decays in the remaining epochs. That training is an ordinary one: on all training images,
  the best epoch on validation, a grid of weight decays if there is one (the search takes `weight_decay`).
* All choices start even, as in the code, so that an all-new path starts with probability one half and full reuse with 1/64.
"""

from dataclasses import replace

from torch import nn

from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.mntdp import MNTDP
from lifelong.search.reinforce import search_path
from lifelong.settings.growing import MNTDPSSettings
from lifelong.training.examples import Examples
from lifelong.training.frozen_prefix import fit_behind


class MNTDPS(MNTDP[MNTDPSSettings]):
    """Learns a distribution over paths along with their weights, and keeps the most probable."""

    name = "mntdp-s"

    def choose(
        self, prefixes: list[nn.Sequential], columns: list[nn.Sequential], examples: Examples, context: Context, record: LearnRecord
    ) -> tuple[int, str]:
        """Search a path, and train it for the remaining epochs."""
        if len(columns) == 1:
            record.trained(fit_behind(prefixes[0], columns[0], examples, context.training, context.stage("train")))
            return 0, "the first task: all new"
        total = context.training.epochs
        found = search_path(
            list(prefixes[-1]),
            nn.ModuleList(columns),
            examples,
            context.training,
            context.stage("search"),
            epochs=max(1, total // 2),
            arch_lr=self.settings.arch_lr,
        )
        left = replace(context.training, epochs=max(1, total - found.epochs))
        outcome = fit_behind(prefixes[found.path], columns[found.path], examples, left, context.stage("train"))
        record.seconds["search"] = found.seconds
        record.trained(replace(outcome, epochs=found.epochs + outcome.epochs))
        return found.path, f"the most probable of {len(columns)} paths, p = {found.probability:.3f} after {found.epochs} epochs of search"
