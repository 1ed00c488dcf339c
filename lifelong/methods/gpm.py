"""GPM: Gradient Projection Memory (Saha, Garg & Roy, ICLR 2021, arXiv 2103.09762).

A step of gradient descent on a layer lies in the span of the layer's inputs. After a task, the directions that carry most of its
inputs are kept as an orthonormal basis M of each layer (section 4, Eq. 5, 8 and 9); later tasks move the weights orthogonally to them

    ΔW <- ΔW - ΔW M Mᵀ                                                                                                (Eq. 6 and 7)

so that what the layer answers to old inputs stays. With R the inputs of a layer as columns, k new directions are the smallest number
with ‖M Mᵀ R‖² + ‖R̂_k‖² >= ε ‖R‖², where R̂ = R - M Mᵀ R, and R̂_k is its best approximation of rank k.

Choices where the paper is silent, or where its code is not followed:

* R has a column per patch; R̂ R̂ᵀ, which is small, is added up in float64 and decomposed instead of R̂. The directions are the same.
  The authors' code takes one direction fewer at the first task; here the rule above holds at every task.
* The rule is imposed on the weights, not on the gradients: after each step the whole change since the start of the task is projected.
  This covers weight decay and momentum, and rounding errors do not accumulate. (The paper trains by plain SGD, as is done here by default.)
* Inputs are those of un-augmented training images in evaluation mode: of 24, 100, 100, 125 and 125 images for the five layers of the
  AlexNets, as in the code; of 100 images for every layer of other networks. For ResNet-18 the code takes 10 for the first 8 layers, 50 for
  the next 3 and 100 for the last 6, where maps are large and patches many. Every patch counts.
* A layer with groups keeps one basis for the patches of all its groups; a 1x1 shortcut is a layer like any other.
* ε grows with the task's number by a step, over ten tasks as in the paper's stream, and stays there: beyond, it would reach 1.
* Biases and batch norm's affine weights are not trained after the first task, unless they belong to a task (`per-task`). The code
  normalizes by the statistics of the test batch; here each task has its own running statistics, by default. Heads are not projected.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.devices import exact, exact_device
from lifelong.methods.method import Context
from lifelong.methods.plain import plain_sgd
from lifelong.methods.single import SingleNetworkMethod
from lifelong.networks.tasknorm import own_parameters
from lifelong.settings.baselines import GPMSettings
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples
from lifelong.training.fit import Batch, Update
from lifelong.training.stages import derive_seed

IMAGES = {"alexnet-hat": (24, 100, 100, 125, 125), "alexnet-gpm": (24, 100, 100, 125, 125)}
"""Images whose patches are sampled, by layer; of other networks `OTHER_IMAGES` for each layer."""

OTHER_IMAGES = 100

PART = 10
"""Images whose patches are in memory at a time."""

GROWING = 9
"""Tasks after the first over which the threshold grows."""

Layer = nn.Conv2d | nn.Linear


class GPM(SingleNetworkMethod[GPMSettings]):
    """Weights move orthogonally to the directions of earlier tasks' layer inputs."""

    name = "gpm"

    def __init__(self, settings: GPMSettings) -> None:
        super().__init__(settings)
        self.bases: dict[str, Tensor] = {}

    def training(self, settings: TrainingSettings) -> TrainingSettings:
        """Return plain SGD if the settings ask for it."""
        return plain_sgd(settings) if self.settings.plain_sgd else settings

    def fixed_parameters(self, network: nn.Module, task_index: int) -> list[nn.Parameter]:
        """Fix, after the first task, everything but projected weights and the task's own batch norm."""
        fixed = super().fixed_parameters(network, task_index)
        if task_index == 0:
            return fixed
        free = [layer.weight for _, layer in layers(network)] + own_parameters(network, task_index)
        return [parameter for parameter in network.parameters() if all(parameter is not other for other in free)]

    def update(self, head: nn.Module, examples: Examples) -> Update | None:
        """Project the whole change of the weights since the start of the task (Eq. 6 and 7)."""
        if not self.bases:
            return None
        weights = {name: layer.weight for name, layer in layers(self._network())}
        start = {name: weight.detach().clone() for name, weight in weights.items()}

        @contextmanager
        def projected(batch: Batch) -> Generator[None]:
            yield
            with torch.no_grad():
                for name, weight in weights.items():
                    change = (weight - start[name]).flatten(1)
                    weight.copy_(start[name] + project_out(change, self.bases[name].to(weight.dtype)).view_as(weight))

        return projected

    def consolidate(self, examples: Examples, context: Context) -> None:
        """Add new directions to each layer's basis ("update memory" in the paper's Algorithm 1)."""
        index = len(self.tasks) - 1
        threshold = min(self.settings.gpm_threshold + self.settings.gpm_threshold_step * min(index, GROWING), 1.0)
        types = {name: layer.weight.dtype for name, layer in layers(self._network())}
        for name, gram in self._grams(examples, derive_seed(context.seed, index, "bases")).items():
            old = exact(self.bases[name]) if name in self.bases else gram.new_zeros(len(gram), 0)
            both, _ = torch.linalg.qr(torch.cat([old, new_directions(gram, old, threshold)], dim=1))
            # Contiguous, as loaded from a file, so that a resumed run gives the same bits.
            self.bases[name] = both.to(types[name]).contiguous().to(examples.train.device)

    def memory(self) -> dict[str, int]:
        """Count the bytes of the bases."""
        return {"bases": sum(basis.nbytes for basis in self.bases.values())}

    def state_dict(self) -> Tree:
        """Return the state, with the bases."""
        return super().state_dict() | {"bases": dict(self.bases)}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        super().load_state_dict(state, device)
        self.bases = {name: basis.to(device) for name, basis in state["bases"].items()}

    def _grams(self, examples: Examples, seed: int) -> dict[str, Tensor]:
        """Compute R Rᵀ of each layer (d, d), over patches of sampled training images."""
        found = list(layers(self._network()))
        counts = IMAGES.get(self.settings.backbone, (OTHER_IMAGES,) * len(found))
        order = torch.randperm(len(examples.train), generator=torch.Generator().manual_seed(seed))[: max(counts)]
        images = examples.train[order.to(examples.train.device)]
        grams = {}
        for name, layer in found:
            d = layer.weight[0].numel()
            grams[name] = torch.zeros(d, d, dtype=torch.float64, device=exact_device(layer.weight.device))
        for start in range(0, len(images), PART):
            part = images[start : start + PART]
            wanted = {name: max(0, count - start) for (name, _), count in zip(found, counts, strict=True)}
            with adding_grams(found, grams, wanted), torch.no_grad():
                self.features(examples.prepare(part), len(self.tasks) - 1)
        return grams


def layers(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Yield the convolutions and linear layers by name, in the order of their parameters."""
    return ((name, module) for name, module in network.named_modules() if isinstance(module, Layer))


def project_out(change: Float[Tensor, "n d"], basis: Float[Tensor, "d k"]) -> Float[Tensor, "n d"]:
    """Remove from each row its components in an orthonormal basis."""
    return change - (change @ basis) @ basis.T


@contextmanager
def adding_grams(found: list[tuple[str, Layer]], grams: dict[str, Tensor], images: dict[str, int]) -> Generator[None]:
    """Add, within the block, the patches of each layer's inputs to its R Rᵀ: of the first `images` images of each call."""

    def add(name: str, layer: Layer, inputs: Tensor) -> None:
        columns = exact(patches(layer, inputs[: images[name]]))
        grams[name] += columns.T @ columns

    handles = [layer.register_forward_pre_hook(lambda m, x, n=name: add(n, m, x[0])) for name, layer in found if images[name]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def patches(layer: Layer, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "m d"]:
    """Return what a row of the layer's weights is multiplied with: a linear layer's inputs, or a convolution's patches, one per row.

    Args:
        layer: with d weights per row.
        inputs: (n, d), or maps (n, c, h, w).
    """
    if isinstance(layer, nn.Linear):
        return inputs
    assert not isinstance(layer.padding, str)
    columns = F.unfold(inputs, layer.kernel_size, dilation=layer.dilation, padding=layer.padding, stride=layer.stride)  # (n, c k², places)
    return columns.unflatten(1, (layer.groups, -1)).transpose(2, 3).flatten(0, 2)


def new_directions(gram: Float[Tensor, "d d"], basis: Float[Tensor, "d k"], threshold: float) -> Float[Tensor, "d _new"]:
    """Find the fewest directions that, with the basis, carry a share of the squared norm of R (Eq. 9; Eq. 5 for an empty basis).

    Args:
        gram: R Rᵀ in float64.
        basis: orthonormal, in float64.
        threshold: the share, in (0, 1].

    Returns:
        Orthonormal and orthogonal to the basis; at most d minus the basis's, and no more than the numerical rank of R.
    """
    rest = project_out(project_out(gram, basis).T, basis)
    values, vectors = torch.linalg.eigh((rest + rest.T) / 2)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    total = gram.trace()
    carried = total - rest.trace() + torch.cat([values.new_zeros(1), values.cumsum(0)])  # by 0, 1, 2, ... new directions
    missing = int((carried < threshold * total).sum())
    real = int((values > len(gram) * torch.finfo(gram.dtype).eps * total).sum())
    return vectors[:, : min(missing, real, len(gram) - basis.shape[1])]
