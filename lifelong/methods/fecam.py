"""FeCAM: the nearest class mean on frozen features by the Mahalanobis distance. Nothing is trained.

Features are raised to the power 1/2 and scaled to length 1, x. With such a mean m_c of each class,

    D_c(f) = (x - m_c)' S^-1 (x - m_c)        S: the covariance of the features within classes, shrunk, as correlations

and the class with the least distance is the answer. With `covariance` "task" or "class" no earlier answer ever changes; with "common" the
covariance is that within the classes of all tasks so far, and all distances are measured by it.

Source: Goswami et al., NeurIPS 2023, arXiv 2309.14062, on a network that stays as it is.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn import functional

from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.pretrained import PretrainedMethod
from lifelong.networks.pretrained import MahalanobisHead, tukey
from lifelong.relatedness.bank import prototypes
from lifelong.settings.pretrained import FeCAMSettings
from lifelong.storage import Tree
from lifelong.training.closed_form import PATIENCE, Rows, scale_of, to_judge
from lifelong.training.covariance import Scatter, correlation, distances, factor, scatter_within, shrunk, whitening

SHARED = "whitening"
"""The weight of heads that is the same for all of them where the covariance is common."""


class FeCAM(PretrainedMethod[FeCAMSettings]):
    """Class means of frozen features, compared by their Mahalanobis distance."""

    name = "fecam"

    def __init__(self, settings: FeCAMSettings) -> None:
        super().__init__(settings)
        self.power = 1.0
        self.scatter: Scatter | None = None

    def fit_head(self, train: Rows, valid: Rows, task: Task, context: Context, record: LearnRecord) -> nn.Module:
        """Compute class means and covariances; the shrinkage, and the scale of distances, are chosen on validation images."""
        if not self.settings.shrinkages:
            raise LifelongError("shrinkages is empty; give at least one, such as 1")
        if not self.tasks:
            self.power = self.settings.tukey_power if bool((train.features >= 0).all()) else 1.0
        shrinkage, scale = self._chosen(*to_judge(train, valid))
        record.hyperparameters["shrinkage"] = shrinkage
        whole = train.with_rows(valid) if self.settings.refit else train
        scatters = self._scatters(whole)
        head = self.make_head(train.features.shape[1], train.classes).to(context.device)
        with torch.no_grad():
            head.whitening.copy_(torch.stack([whitening(each) for each in factors(scatters, shrinkage)]))
            head.mean.copy_(self._means(whole))
            head.scale.fill_(scale)
        if self.settings.covariance == "common":
            (self.scatter,) = scatters
            self._share(head.whitening)
        return head

    def _chosen(self, train: Rows, judges: Rows) -> tuple[float, float]:
        """Choose the shrinkage under which the softmax of scaled distances has the least cross-entropy, the stronger on ties.

        Returns:
            The shrinkage, and the scale of distances.
        """
        scatters, means, features = self._scatters(train), self._means(train), self._prepared(judges.features)
        best, worse = (torch.inf, 0.0, 0.0), 0
        for shrinkage in self.settings.shrinkages:
            scores = -distances(features, means, factors(scatters, shrinkage))
            scale = scale_of(scores, judges.labels)
            loss = functional.cross_entropy(scale * scores, judges.labels).item()
            best, worse = ((loss, shrinkage, scale), 0) if loss < best[0] else (best, worse + 1)
            if worse >= PATIENCE:
                break
        return best[1], best[2]

    def _scatters(self, rows: Rows) -> list[Scatter]:
        """Return the scatter of each class, or one of all classes, together with that of earlier tasks where it is common."""
        raised = Rows(tukey(rows.features, self.power), rows.labels, rows.classes)
        if self.settings.covariance == "class":
            return [scatter_within(raised.taken(raised.labels == label)) for label in range(rows.classes)]
        found = scatter_within(raised)
        return [found if self.scatter is None else self.scatter + found]

    def _means(self, rows: Rows) -> Float64[Tensor, "c d"]:
        """Return the class means of features as they are, which are prepared afterwards, as in the paper's code."""
        return self._prepared(prototypes(rows.features, rows.labels, rows.classes).means)

    def _prepared(self, features: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        return functional.normalize(tukey(features, self.power), dim=1)

    @property
    def heads_are_own(self) -> bool:
        """Whether no covariance is common to all tasks."""
        return self.settings.covariance != "common"

    def make_head(self, inputs: int, classes: int) -> MahalanobisHead:
        """Make a head of distances."""
        return MahalanobisHead(inputs, classes, own=self.settings.covariance == "class", power=self.power)

    def _share(self, weight: nn.Parameter) -> None:
        """Let the heads of all tasks have one common covariance."""
        for head in self.heads:
            assert isinstance(head, MahalanobisHead)
            head.whitening = weight

    def memory(self) -> dict[str, int]:
        """Count the bytes of class means and spreads, and of a common scatter."""
        return super().memory() | ({"statistics": self.scatter.matrix.nbytes + 8} if self.scatter else {})

    def state_dict(self) -> Tree:
        """Return the state of `PretrainedMethod`, the power of features, and the common scatter with what the heads share."""
        state = super().state_dict() | {"power": self.power}
        if self.scatter is None:
            return state
        weights = [head.state_dict() for head in self.heads]
        shared = weights[0][SHARED]
        heads = [{name: weight for name, weight in head.items() if name != SHARED} for head in weights]
        return state | {"heads": heads, SHARED: shared, "scatter": self.scatter.matrix, "degrees": self.scatter.degrees}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self.power, self.scatter = state["power"], None
        if "scatter" in state:
            self.scatter = Scatter(state["scatter"], state["degrees"])
            state = state | {"heads": [head | {SHARED: state[SHARED]} for head in state["heads"]]}
        super().load_state_dict(state, device)
        if self.scatter is not None:
            self._share(self.heads[0].get_parameter(SHARED))


def factors(scatters: Sequence[Scatter], shrinkage: float) -> list[Float64[Tensor, "d d"]]:
    """Return the Cholesky factor of each covariance, shrunk, as correlations."""
    return [factor(correlation(shrunk(scatter.covariance, shrinkage))) for scatter in scatters]
