"""The extractors `torchvision:NAME`: classifiers of torchvision, without their last layer."""

import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lifelong.errors import LifelongError
from lifelong.networks.foreign import OUTPUT, ForeignNetwork, TorchvisionNetwork, examined, quarters
from lifelong.relatedness.families.packages import (
    Open,
    described,
    imported,
    load_eval,
    meant,
    no_weights,
    opener,
    remedy_for,
    side_of,
    with_counters,
)
from lifelong.relatedness.weights import checked_tensors, read


def of_torchvision(name: str) -> Open:
    """Find a classifier of images of torchvision by its name there.

    Raises:
        LifelongError: torchvision is not installed, or has no such network.
    """
    models = imported("torchvision.models", f"torchvision:{name}")
    names = models.list_models(module=models)
    if name not in names:
        raise LifelongError(f"torchvision has no classifier '{name}'{meant(name, names)}; see torchvision.models.list_models()")

    def make() -> nn.Module:
        network = models.get_model(name, weights=None)
        if hasattr(network, "transform_input"):
            network.transform_input = True  # as its pretrained weights want it
        return _without_classifier(network)

    def load(weights: Path | None, download: bool) -> ForeignNetwork:
        whole = models.get_model(name, weights=None)
        remedy, label = remedy_for(f"torchvision's {name}"), f"torchvision's {name}"
        published = models.get_model_weights(name).DEFAULT
        preparation = published.transforms()
        side = side_of(getattr(preparation, "crop_size", None))
        network = make()
        expected = network.state_dict()
        if weights is not None:
            tensors, file = read(weights, remedy), weights
        elif download:
            tensors, file = _published(published), Path(published.url)
        else:
            no_weights(f"torchvision:{name}")
        dropped = whole.state_dict().keys() - expected.keys()
        found = with_counters({key: tensor for key, tensor in tensors.items() if key not in dropped}, expected)
        load_eval(network, checked_tensors(found, expected, label, file, remedy))
        about = described(getattr(preparation, "mean", None), getattr(preparation, "std", None), _find_stages(network, side))
        return examined(lambda about: TorchvisionNetwork(_with_stages(network, about.stages), about), about, side)

    return opener(f"torchvision:{name}", load, lambda about: TorchvisionNetwork(_with_stages(make(), about.stages), about))


def _published(weights: Any) -> dict[str, Tensor]:
    """Download weights that torchvision publishes, which are no safetensors: only tensors are read, and checked by the hash in their name.

    Raises:
        LifelongError: they cannot be reached.
    """
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # of the network or the disk
        line = (str(error).strip() or "no answer").splitlines()[0]
        raise LifelongError(
            f"cannot download the weights {weights.url} ({type(error).__name__}: {line}); connect to the network, or give a file "
            "with --weights"
        ) from error


def _without_classifier(network: nn.Module) -> nn.Module:
    """Let a classifier of torchvision give what its last linear layer reads; of one without such a layer, the averaged last maps."""
    last = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1:]
    if not any(name.startswith(("fc", "classifier", "head")) for name in last):
        network.set_submodule("classifier", nn.AdaptiveAvgPool2d(1))
        return network
    network.set_submodule(last[0], nn.Identity())
    return network


def _candidates(network: nn.Module) -> list[str]:
    """Return the names of the parts of a network of torchvision that follow one another."""
    names = [name for name, _ in network.named_children() if re.fullmatch(r"(layer|stage|block)\d+", name)]
    for whole in ("features", "trunk_output", "blocks"):
        part = getattr(network, whole, None)
        if isinstance(part, nn.Sequential):
            names += [f"{whole}.{name}" for name, _ in part.named_children()]
    return names


@torch.no_grad()
def _find_stages(network: nn.Module, side: int | None) -> tuple[str, ...]:
    """Return the last part of a network of torchvision at each size of maps."""
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = []
    for name in _candidates(network):
        note = lambda _, __, maps, name=name: shapes.update({name: tuple(maps.shape)}) if isinstance(maps, Tensor) else None  # noqa: E731
        hooks.append(network.get_submodule(name).register_forward_hook(note))
    side = side or 224
    network.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    # Maps whose channels come last, as Swin's, are left out: channels grow while sides shrink.
    square = {name: shape for name, shape in shapes.items() if len(shape) == 4 and shape[2] == shape[3]}
    return quarters(list({shape[2]: name for name, shape in square.items()}.values()))


def _with_stages(network: nn.Module, stages: Iterable[str]) -> nn.Module:
    """Let a network of torchvision give its maps after some parts, besides its output."""
    wanted = {name: name for name in stages if name != OUTPUT}
    if not wanted:
        return network
    extraction = importlib.import_module("torchvision.models.feature_extraction")
    last = extraction.get_graph_node_names(network)[1][-1]
    return extraction.create_feature_extractor(network, wanted | {last: OUTPUT})
