"""MNTDP-D, the deterministic variant of MNTDP (Veniat, Denoyer & Ranzato, ICLR 2021, arXiv 2012.12631): every path is trained to its end.

Paths and candidates are defined in `mntdp.py`. Each candidate is trained separately,

    theta_k = argmin CE of path k, over its new modules alone,

and the one with the best validation accuracy is kept.

Choices where the paper is silent:

* At equal accuracy the path that reuses more is kept: it costs fewer parameters.
* The paths are trained in turn. They have only frozen modules in common, whose outputs are computed once per path if images are not
  augmented (`fit_behind`; `benchmarks/candidate_paths.py` says what that saves).
"""

from dataclasses import replace

from torch import nn

from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.mntdp import MNTDP
from lifelong.settings.growing import MNTDPSettings
from lifelong.training.examples import Examples
from lifelong.training.frozen_prefix import fit_behind


class MNTDPD(MNTDP[MNTDPSettings]):
    """Trains all paths and keeps the best on validation."""

    name = "mntdp-d"

    def choose(
        self, prefixes: list[nn.Sequential], columns: list[nn.Sequential], examples: Examples, context: Context, record: LearnRecord
    ) -> tuple[int, str]:
        """Train each path; choose the best by validation accuracy, on ties the one that reuses the most."""
        outcomes = [
            fit_behind(prefix, column, examples, context.training, context.stage(f"path-{reused}"))
            for reused, (prefix, column) in enumerate(zip(prefixes, columns, strict=True))
        ]
        best = max(range(len(outcomes)), key=lambda reused: (outcomes[reused].accuracy, reused))
        spent = replace(outcomes[best], epochs=sum(o.epochs for o in outcomes), seconds=sum(o.seconds for o in outcomes))
        record.trained(spent)
        others = f"the best of {len(outcomes)} paths on validation ({', '.join(f'{o.accuracy:.3f}' for o in outcomes)})"
        return best, others if len(outcomes) > 1 else "the first task: all new"
