"""The frozen pretrained network that a run keeps: it answers without the file that its weights came from."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.data.augment import between
from lifelong.data.feature_cache import kept, rounded
from lifelong.data.task import IMAGENET, Normalization
from lifelong.errors import LifelongError
from lifelong.methods.method import Context, Method, count_parameters
from lifelong.networks.frozen import freeze
from lifelong.networks.pretrained import FrozenFeatures
from lifelong.relatedness.extractor import Extractor, NetworkExtractor, open_extractor
from lifelong.settings.pretrained import FeatureSize
from lifelong.storage import Tree

Stages = Callable[[nn.Module], Sequence[str]]


class KeptExtractor(NetworkExtractor):
    """The features of a frozen network with its size and stages; runs keep them on the disk (`lifelong.data.feature_cache`).

    Attributes:
        half: whether features are rounded to half precision.
    """

    half = False

    @torch.no_grad()
    def features(self, images: UInt8[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n d"]:
        """See `Extractor.features`. Pixels, which have no weights, are quicker computed than read."""

        def compute() -> Tensor:
            found = super(KeptExtractor, self).features(images, normalization)
            return rounded(found) if self.half else found

        network = self.network
        if not self.digest or not isinstance(network, FrozenFeatures):
            return compute()
        about = [self.name, self.digest, network.size, *network.stages, *(["half"] if self.half else [])]
        return kept(images, about, self.device, compute)


class FrozenNetwork:
    """A frozen network with the size its images are resized to, and the stages whose averaged maps are its features.

    Args:
        opened: the extractor whose network it is.
        size: side in pixels, or "task" for images as they are.
        stages: gives the stages for a network; none: its own output.
        device: where it computes.

    Attributes:
        name: of the extractor.
        module: the network with its input size and stages.

    Raises:
        LifelongError: the network has no such stage.
    """

    def __init__(self, opened: Extractor, size: FeatureSize, stages: Stages, device: torch.device | str) -> None:
        self.name = opened.name
        try:
            self.module = FrozenFeatures(opened.network, None if size == "task" else int(size), stages(opened.network))
        except ValueError as error:
            raise LifelongError(f"feature_stages: the extractor '{opened.name}' has {error}") from error
        freeze(self.module)
        self.extractor = KeptExtractor(opened.name, self.module, opened.digest, feature_input="resized", device=device)

    def features(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Compute features of images, with ImageNet's normalization whatever their task's is."""
        return self.extractor.features(images, IMAGENET)

    def features_of(self, inputs: Float[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n d"]:
        """Compute features of images that were prepared with a task's normalization."""
        return self.module(renormalized(inputs, normalization))

    def state(self) -> Tree:
        """Return the extractor's name and the weights of the network."""
        return {"extractor": self.name, "network": self.module.network.state_dict()}

    @classmethod
    def from_state(cls, state: Tree, size: FeatureSize, stages: Stages, device: torch.device | str) -> "FrozenNetwork":
        """Restore what `state` returned, on a device."""
        return cls(open_extractor(state["extractor"], device=device, saved=state["network"]), size, stages, device)


@runtime_checkable
class UsesFrozenNetwork(Protocol):
    """The settings of a method that keeps a frozen network."""

    @property
    def extractor(self) -> str:
        """The name of the extractor whose network it is."""
        ...

    @property
    def feature_size(self) -> FeatureSize:
        """The side in pixels to which its images are resized."""
        ...

    @property
    def feature_precision(self) -> str:
        """How its features are kept: "float32", or rounded to "half" precision."""
        ...


FrozenSettingsT = TypeVar("FrozenSettingsT", bound=UsesFrozenNetwork)


class OnFrozenNetwork(Method[FrozenSettingsT]):
    """A method that answers by a frozen network, which it takes from its extractor at the first task and keeps in its state."""

    def __init__(self, settings: FrozenSettingsT) -> None:
        super().__init__(settings)
        self._frozen: FrozenNetwork | None = None

    @property
    def frozen(self) -> FrozenNetwork:
        """The frozen network, which is there once a task has been learned."""
        assert self._frozen is not None, "no task has been learned"
        return self._frozen

    def extractor(self) -> tuple[str, str] | None:
        """Return the extractor named by the settings; None once its network is part of the state."""
        return (self.settings.extractor, "task") if self._frozen is None else None

    @abstractmethod
    def stages(self, network: nn.Module) -> tuple[str, ...]:
        """Return the stages whose averaged maps are the features; none: the network's own output."""

    def open_network(self, context: Context) -> None:
        """Take the network from its extractor, once.

        Raises:
            LifelongError: its weights are missing, or it has no such stage.
        """
        if self._frozen is None:
            opened = context.extractor(self.settings.extractor, "task")
            self._frozen = FrozenNetwork(opened, self.settings.feature_size, self.stages, context.device)
            self._frozen.extractor.half = self.settings.feature_precision == "half"

    def frozen_parameters(self) -> int:
        """Count the parameters of the frozen network."""
        return 0 if self._frozen is None else count_parameters([self._frozen.module])

    def network_state(self) -> Tree:
        """Return the extractor's name and the weights of the network; None for these before the first task."""
        return {"extractor": self.settings.extractor, "network": None} if self._frozen is None else self._frozen.state()

    def load_network(self, state: Tree, device: torch.device | str) -> bool:
        """Restore what `network_state` returned, on a device; tell whether a network was kept."""
        if state["network"] is not None:
            self._frozen = FrozenNetwork.from_state(state, self.settings.feature_size, self.stages, device)
            self._frozen.extractor.half = self.settings.feature_precision == "half"
        return self._frozen is not None


def renormalized(inputs: Float[Tensor, "n 3 h w"], given: Normalization) -> Float[Tensor, "n 3 h w"]:
    """Turn images with some normalization into images with ImageNet's."""
    if given == IMAGENET:
        return inputs
    scale, shift = (inputs.new_tensor(values).view(3, 1, 1) for values in between(given, IMAGENET))
    return inputs * scale + shift
