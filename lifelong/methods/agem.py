"""A-GEM: Averaged Gradient Episodic Memory (Chaudhry et al., ICLR 2019, arXiv 1812.00420).

No step may raise the mean loss over the memory, to first order. With g the gradient of the batch's loss, and g_ref that of a random
memory batch's loss, the gradient that is followed is (Eq. 11)

    g                                        where g . g_ref >= 0
    g - (g . g_ref) / (g_ref . g_ref) g_ref  otherwise

The memory is a ring for each class, as in the authors' code. Choices where the paper is silent, or another setting than its single epoch
is meant:

- The gradients are those of the backbone. Old heads are not trained, so they have no part in either; the new head has no part in
  g_ref. What is trained is projected whole, so the inequality is the paper's.
- g is projected before it is clipped (which only scales it), before momentum and before weight decay. Those two, which the paper's
  plain SGD has not, act on what was projected and may leave the half-space; `momentum` 0 and `weight_decay` 0 give the paper's step.
- Both gradients are taken in the same batch-norm mode, but the memory batch leaves the running statistics as they are.
- Where g_ref is zero to rounding the memory asks for nothing, and g is followed.
- Several epochs: the memory holds only earlier tasks while a task is learned, and is offered each image once afterwards.
- The paper keeps 13 images per class and draws 256 of them next to batches of 10; the defaults are the 15 of ER, so that both keep the
  same, and 64, PAR's batch.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lifelong.devices import widest
from lifelong.methods.replay import ReplayMethod
from lifelong.settings.baselines import AGEMSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import Batch, Update

NO_REFERENCE = 1e-24
"""Squared norm of a reference gradient below which it has no direction."""


class AGEM(ReplayMethod[AGEMSettings]):
    """Plain training, with gradients projected so as not to oppose the memory's."""

    name = "agem"

    def update(self, head: nn.Module, examples: Examples) -> Update | None:
        """Project the gradient of the backbone once the memory holds images."""
        if not len(self.buffer):
            return None
        network = self._network()
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

        @contextmanager
        def projected(batch: Batch) -> Generator[None]:
            with statistics_untouched(network):
                loss = self.mean_loss(self.replayed(batch), list(self.heads))
            reference = torch.autograd.grad(loss, parameters, allow_unused=True)
            gradient = project([parameter.grad for parameter in parameters], reference)
            for parameter, wanted in zip(parameters, gradient, strict=True):
                parameter.grad = wanted
            yield

        return projected


def project(gradient: Sequence[Tensor | None], reference: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Remove from a gradient what points against a reference (Eq. 11).

    Args:
        gradient: by parameter; None: the parameter has no part in the loss, its gradient is zero.
        reference: of the same parameters.

    Returns:
        By parameter; equal to the gradient where its product with the reference is not negative, or the reference is zero.
    """
    pairs = list(zip(gradient, reference, strict=True))
    both = [(g, r) for g, r in pairs if g is not None and r is not None]
    if not both:
        return list(gradient)
    # Sums over hundreds of thousands of products, whose sign decides.
    wide = widest(both[0][0].device)
    inner = torch.as_tensor(sum((g.to(wide) * r.to(wide)).sum() for g, r in both))
    square = torch.as_tensor(sum(r.to(wide).square().sum() for r in reference if r is not None))
    # Decided on the device: the host would have to wait for it in every step.
    followed = (inner >= 0) | (square < NO_REFERENCE)
    factor = inner / square

    def projected(g: Tensor | None, r: Tensor | None) -> Tensor | None:
        if r is None:
            return g
        own = torch.zeros_like(r) if g is None else g
        return torch.where(followed, own, own - (factor * r.to(wide)).to(r.dtype))

    return [projected(g, r) for g, r in pairs]


@contextmanager
def statistics_untouched(network: nn.Module) -> Generator[None]:
    """Leave running statistics unchanged within the block: batch norms in training mode still normalize by the batch."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
