"""Networks of other libraries as sources of features: timm, torchvision and transformers, none of which is imported here.

What is known of such a network besides its weights (its normalization, the one size it may need, its stages) is kept among its tensors,
so that a run that keeps them can build it again without any file.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lifelong.errors import LifelongError

OUTPUT = "output"
"""The name of the stage that is a network's own output."""

PROBE = 64
"""Side in pixels of the image by which it is found out whether a network takes images of other sizes than its own."""

MOST_STAGES = 6
"""Stages of a network, at most; of more, such as the blocks of a transformer, those that end its quarters are taken."""


@dataclass(frozen=True)
class About:
    """What is known of a network besides its weights.

    Attributes:
        scale, shift: of each channel, from ImageNet's normalization to the network's own.
        size: side in pixels of the only images that it takes; None: any.
        stages: the length of each stage's averaged maps, by name, in order.
        config: what its library builds it from, besides its name.
    """

    scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    size: int | None = None
    stages: dict[str, int] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def tensor(self) -> Tensor:
        """Write it as bytes."""
        return torch.tensor(list(json.dumps(asdict(self)).encode()), dtype=torch.uint8)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "About":
        """Read it from the tensors of a `ForeignNetwork`."""
        known = json.loads(bytes(tensors["about"].tolist()))
        return cls(**known | {"scale": tuple(known["scale"]), "shift": tuple(known["shift"]), "stages": dict(known["stages"])})


class ForeignNetwork(nn.Module, ABC):
    """A network of another library, as `FrozenFeatures` wants it.

    Args:
        network: its module.
        about: what is known of it.

    Attributes:
        stages: the length of the features after each stage, by name, in order.
        size: side in pixels of the only images that it takes, to which others are resized; None: any.
        feature_dim: length of its own output.
    """

    def __init__(self, network: nn.Module, about: About) -> None:
        super().__init__()
        self.network = network
        self.stages, self.size = about.stages, about.size
        self.feature_dim = about.stages.get(OUTPUT) or next(reversed(about.stages.values()), 0)
        self.register_buffer("about", about.tensor())
        self.renormalizes = about.scale != (1.0, 1.0, 1.0) or about.shift != (0.0, 0.0, 0.0)
        for name, values in (("scale", about.scale), ("shift", about.shift)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    @abstractmethod
    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Compute the network's own features of images as it takes them."""

    @abstractmethod
    def everything(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """Compute the maps (n, c, h, w) or tokens (n, t, c) after each stage, and the own features under the name `OUTPUT`."""

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Compute features of images with ImageNet's normalization."""
        return self._tried(self.own, images)

    def pooled(self, images: Float[Tensor, "n 3 h w"], stages: Sequence[str]) -> Float[Tensor, "n d"]:
        """Compute the averaged maps after some of the `stages`, in the network's order, side by side."""
        found = self._tried(self.everything, images)
        return torch.cat([averaged(found[stage]) for stage in self.stages if stage in stages], dim=1)

    def _tried(self, compute: Callable[[Tensor], Any], images: Float[Tensor, "n 3 h w"]) -> Any:
        height, width = images.shape[2:]
        try:
            return compute(self._prepared(images))
        except (RuntimeError, AssertionError, ValueError) as error:
            if "memory" in str(error):
                raise  # it could not have smaller images either
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LifelongError(
                f"the pretrained network cannot take images of {height} x {width} ({line}); use another --feature-size"
            ) from error

    def _prepared(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        """Give images the size and the normalization of the network."""
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            shrinks = min(images.shape[2:]) > self.size
            images = functional.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False, antialias=shrinks)
        return torch.addcmul(self.shift, images, self.scale) if self.renormalizes else images


def averaged(maps: Float[Tensor, "n ..."]) -> Float[Tensor, "n c"]:
    """Average maps (n, c, h, w) over places, or tokens (n, t, c) over tokens; vectors (n, c) stay as they are."""
    return maps.mean(dim=(2, 3)) if maps.ndim == 4 else maps.mean(dim=1) if maps.ndim == 3 else maps


def quarters(stages: Sequence[str]) -> tuple[str, ...]:
    """Return the stages that end each quarter, if there are more than `MOST_STAGES`."""
    if len(stages) <= MOST_STAGES:
        return tuple(stages)
    return tuple(stages[(quarter * len(stages)) // 4 - 1] for quarter in (1, 2, 3, 4))


@torch.no_grad()
def examined(make: Callable[[About], ForeignNetwork], about: About, own_size: int | None) -> ForeignNetwork:
    """Find out by one image which sizes a network takes and how long its features are.

    Args:
        make: makes it.
        about: what is known so far; the lengths of its stages are not.
        own_size: side in pixels of the images that it was trained on, if it is known.

    Raises:
        LifelongError: it takes neither images of 64 x 64 nor of its own size.
    """
    try:
        found = _outputs(make(about), PROBE)
    except LifelongError:
        if own_size in (None, PROBE):
            raise
        about = replace(about, size=own_size)
        found = _outputs(make(about), own_size)
    own = found.pop(OUTPUT)
    stages = {stage: found[stage].shape[1] for stage in about.stages}
    last = found[list(stages)[-1]] if stages else None
    if last is None or last.shape != own.shape or not torch.allclose(last, own, rtol=1e-3, atol=1e-4):
        stages[OUTPUT] = own.shape[1]
    return make(replace(about, stages=stages))


def _outputs(network: ForeignNetwork, side: int) -> dict[str, Tensor]:
    """Compute what a network gives for one image of that size, averaged."""
    network.eval()
    values = torch.linspace(-1, 1, 3 * side * side).view(1, 3, side, side)
    return {stage: averaged(maps) for stage, maps in network._tried(network.everything, values).items()}


class TimmNetwork(ForeignNetwork):
    """A network of timm without its classifier. Its stages are those that timm describes in `feature_info`."""

    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """See `ForeignNetwork.own`."""
        return self.network(images)

    def everything(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """See `ForeignNetwork.everything`."""
        if not any(stage != OUTPUT for stage in self.stages):
            return {OUTPUT: self.own(images)}
        known = self.described(self.network)
        wanted = [stage for stage in self.stages if stage != OUTPUT]
        network: Any = self.network
        final, maps = network.forward_intermediates(images, indices=[known.index(stage) for stage in wanted])
        return dict(zip(wanted, maps, strict=True)) | {OUTPUT: network.forward_head(final)}

    @staticmethod
    def described(network: nn.Module) -> tuple[str, ...]:
        """Return the names of all stages that timm can give the maps of."""
        info = getattr(network, "feature_info", None) if hasattr(network, "forward_intermediates") else None
        return tuple(str(stage["module"]) for stage in info or ())


class TorchvisionNetwork(ForeignNetwork):
    """A network of torchvision without its classifier, made by `create_feature_extractor` if it has stages."""

    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """See `ForeignNetwork.own`."""
        return self.everything(images)[OUTPUT]

    def everything(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """See `ForeignNetwork.everything`."""
        found = self.network(images)
        return found if isinstance(found, dict) else {OUTPUT: found}


class HubNetwork(ForeignNetwork):
    """A network of transformers. Its stages are its hidden states.

    Its own features are the pooled output if its pooling has no weights, else the class token where it has one, else the average.
    """

    def __init__(self, network: nn.Module, about: About) -> None:
        super().__init__(network, about)
        self.class_token = any("cls_token" in name or "class_embedding" in name for name, _ in network.named_parameters())

    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """See `ForeignNetwork.own`."""
        return self._own(self.network(pixel_values=images))

    def everything(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """See `ForeignNetwork.everything`."""
        given = self.network(pixel_values=images, output_hidden_states=True)
        states = given.hidden_states
        return {stage: states[self.place(stage)] for stage in self.stages if stage != OUTPUT} | {OUTPUT: self._own(given)}

    @staticmethod
    def place(stage: str) -> int:
        """Return the index of a stage's hidden state."""
        return int(stage.removeprefix("block"))

    def _own(self, given: Any) -> Float[Tensor, "n d"]:
        pooled = getattr(given, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        last = given.last_hidden_state
        return last[:, 0] if self.class_token and last.ndim == 3 else averaged(last)
