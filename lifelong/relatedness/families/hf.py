"""The extractors `hf:OWNER/NAME`: networks of images on the Hugging Face hub, built by transformers."""

import contextlib
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from lifelong.errors import LifelongError
from lifelong.networks.foreign import About, ForeignNetwork, HubNetwork, examined, quarters
from lifelong.opening import read_json
from lifelong.relatedness.families.packages import (
    Open,
    described,
    imported,
    no_weights,
    opener,
    side_of,
)
from lifelong.relatedness.weights import fetch, read


def of_hf(repository: str) -> Open:
    """Find a network of images on the Hugging Face hub by its address there, such as "facebook/dinov2-small".

    Raises:
        LifelongError: transformers is not installed.
    """
    transformers = imported("transformers", f"hf:{repository}")

    def make(config: Any) -> nn.Module:
        return _tower(transformers.AutoModel.from_config(config))

    def load(weights: Path | None, download: bool) -> ForeignNetwork:
        if weights is None and not download:
            no_weights(f"hf:{repository}", "with config.json beside it; ")
        remedy = f"give model.safetensors of {repository}, with config.json beside it, with --weights"
        if weights is not None and weights.name != "model.safetensors":
            raise LifelongError(f"{weights}: hf:{repository} reads a file named model.safetensors; {remedy}")
        if weights is None:
            fetch(repository, "config.json")
        file = weights if weights is not None else fetch(repository, "model.safetensors")
        for name, tensor in read(file, remedy).items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise LifelongError(f"the weights {file} are damaged: '{name}' holds NaN or infinity; {remedy}")
        network = _from_hub(transformers, file, remedy)
        # A tower's configuration is its own.
        config = _plain(network.config)
        mean, std = _preparation(file.parent, None if weights is not None else repository)
        side = side_of(config.get("image_size"))
        states = [f"block{place}" for place in range(1, _count_states(network, side, file.parent, remedy))]
        about = described(mean, std, quarters(states), config)
        return examined(lambda about: HubNetwork(network, about), about, side)

    def rebuilt(about: About) -> ForeignNetwork:
        config = dict(about.config)
        return HubNetwork(make(transformers.AutoConfig.for_model(config.pop("model_type"), **config)), about)

    return opener(f"hf:{repository}", load, rebuilt)


def _tower(network: nn.Module) -> nn.Module:
    """Return the part of a network of transformers that reads images, without a pooling that has weights."""
    tower = getattr(network, "vision_model", network)
    pooler = getattr(tower, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        setattr(tower, "pooler", None)  # noqa: B010
    return tower


def _from_hub(transformers: ModuleType, file: Path, remedy: str) -> nn.Module:
    """Build a network of transformers from a folder with its configuration and weights.

    Raises:
        LifelongError: they do not fit, or its code would come with the files.
    """
    hub = importlib.import_module("transformers.utils.logging")
    hub.disable_progress_bar()
    try:
        whole, found = transformers.AutoModel.from_pretrained(
            file.parent,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.get_default_dtype(),
        )
    except Exception as error:  # of many types: files that are missing, damaged or of no known network
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LifelongError(f"cannot build a network from {file.parent} ({line}); {remedy}") from error
    tower = _tower(whole)
    if getattr(whole, "vision_model", None) is None and getattr(whole.config, "text_config", None) is not None:
        raise LifelongError(f"{file.parent} holds a network that does not only read images; {remedy}")
    needed = tower.state_dict().keys()
    prefix = "" if tower is whole else "vision_model."
    lost = [name for name in sorted(found["missing_keys"]) if name.startswith(prefix) and name.removeprefix(prefix) in needed]
    if lost or found["mismatched_keys"]:
        first = lost[0] if lost else sorted(found["mismatched_keys"])[0]
        raise LifelongError(f"the weights {file} do not fit their config.json: '{first}' is missing or has another shape; {remedy}")
    return tower.eval()


def _plain(config: Any) -> dict[str, Any]:
    """Return a configuration of transformers as plain values."""
    return json.loads(config.to_json_string(use_diff=False))


def _preparation(folder: Path, repository: str | None) -> tuple[list[float] | None, list[float] | None]:
    """Return the mean and standard deviation of the images that a network was trained on; None where its files do not say."""
    name = "preprocessor_config.json"
    file = folder / name
    if not file.exists() and repository is not None:
        with contextlib.suppress(LifelongError):  # some networks have none
            file = fetch(repository, name)
    if not file.exists():
        return None, None
    try:
        known = read_json(file)
        return known.get("image_mean"), known.get("image_std")
    except (OSError, ValueError, AttributeError) as error:
        raise LifelongError(
            f"cannot read {file} ({error}); restore it, or remove it if the images have ImageNet's normalization"
        ) from error


@torch.no_grad()
def _count_states(network: nn.Module, side: int | None, folder: Path, remedy: str) -> int:
    """Return how many hidden states a network of transformers gives for an image.

    Raises:
        LifelongError: it reads no images.
    """
    side = side or 64
    try:
        return len(network(pixel_values=torch.zeros(1, 3, side, side), output_hidden_states=True).hidden_states)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LifelongError(f"{folder} holds a network that does not read images ({line}); {remedy}") from error
