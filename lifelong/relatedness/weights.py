"""Finding, reading and checking the extractor's ImageNet weights."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lifelong.errors import LifelongError
from lifelong.extras import require_extra
from lifelong.networks.resnet import ImageNetResNet18

HUB_ID = "timm/resnet18.tv_in1k"
HUB_FILE = "model.safetensors"
"""The paper's weights: torchvision's ResNet-18, IMAGENET1K_V1."""

PATIENCE = 20.0
"""Seconds to wait for the hub's first answer."""

REMEDY = "give the weights of a torchvision ResNet-18 as safetensors, up to layer3 or whole, with --weights"


def load_resnet18(weights: Path | None, *, download: bool) -> tuple[nn.Module, str]:
    """Load the ResNet-18 without its classifier, with ImageNet weights, and return their digest too.

    Args:
        weights: a safetensors file with torchvision's parameter names, whole or ending at layer3; None: from the hub.
        download: whether the hub may be used if no file is given.

    Raises:
        LifelongError: there is neither a file nor permission to download; the file is missing, damaged or of another network; or the
            hub cannot be reached.
    """
    if weights is None and not download:
        raise LifelongError(
            "the extractor 'resnet18' needs ImageNet weights: give them with --weights FILE (safetensors), "
            "let them be fetched with --download, or start a run with --extractor pixels"
        )
    file = Path(weights) if weights is not None else fetch()
    tensors = _relevant(read(file))
    last = "layer4" if any(name.startswith("layer4.") for name in tensors) else "layer3"
    with torch.device("meta"):  # no memory, and no random numbers drawn for weights that are replaced
        network = ImageNetResNet18(last=last)
    check(tensors, network, last, file)
    network.load_state_dict(tensors, assign=True)
    return network, digest(tensors)


def saved_resnet18(tensors: Mapping[str, Tensor]) -> tuple[nn.Module, str]:
    """Build the network of `load_resnet18` from tensors that a run keeps of it, and return their digest too."""
    with torch.device("meta"):
        network = ImageNetResNet18(last="layer4" if any(name.startswith("layer4.") for name in tensors) else "layer3")
    network.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    return network, digest(network.state_dict())


def fetch() -> Path:
    """Get the weights from the hub, or from its cache on this machine.

    Raises:
        LifelongError: neither has them, or the extra `hub` is not installed.
    """
    require_extra(
        "hub", ("huggingface_hub",), f"downloading the extractor's weights {HUB_ID}/{HUB_FILE}", "or give a file with --weights FILE"
    )
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(HUB_ID, HUB_FILE, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not fetched before
    try:
        # First, since it fails at once if the hub is out of reach; the download would retry for half a minute.
        huggingface_hub.HfApi().model_info(HUB_ID, timeout=PATIENCE)
        return Path(huggingface_hub.hf_hub_download(HUB_ID, HUB_FILE))
    except Exception as error:  # of the network, the disk or the hub; their types change with the hub's library
        line = (str(error).strip() or "no answer").splitlines()[0]
        raise LifelongError(
            f"cannot download the extractor's weights {HUB_ID}/{HUB_FILE} ({type(error).__name__}: {line}); "
            "connect to the network, or give a file with --weights, or start a run with --extractor pixels"
        ) from error


def read(file: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        LifelongError: it is missing, truncated, or not a safetensors file.
    """
    if not os.path.isfile(file):
        raise LifelongError(f"there is no weights file {file}; {REMEDY}, or use --download, or start a run with --extractor pixels")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise LifelongError(f"cannot read the weights {file}: truncated, or not a safetensors file ({error}); {REMEDY}") from error


def _relevant(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the classifier, and reset the batch counters; features depend on neither."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    counters = {name.removesuffix("running_var") + "num_batches_tracked" for name in kept if name.endswith("running_var")}
    return kept | {name: torch.zeros((), dtype=torch.int64) for name in sorted(counters)}


def check(tensors: dict[str, Tensor], network: nn.Module, last: Literal["layer3", "layer4"], file: Path) -> None:
    """Raise a LifelongError that names the first tensor that is missing, superfluous, of another shape, or not finite numbers."""
    expected = network.state_dict()
    where = f"the weights {file} do not fit a ResNet-18 that ends at {last}"
    for name, wanted in expected.items():
        if name not in tensors and name.endswith("num_batches_tracked"):
            continue  # its layer's own tensors will be found missing
        if name not in tensors:
            raise LifelongError(f"{where}: '{name}' is missing; {REMEDY}")
        given = tensors[name]
        if given.shape != wanted.shape:
            raise LifelongError(f"{where}: '{name}' has shape {list(given.shape)}, not {list(wanted.shape)}; {REMEDY}")
        if wanted.is_floating_point() and not given.is_floating_point():
            raise LifelongError(f"{where}: '{name}' holds {str(given.dtype).removeprefix('torch.')}, not floating-point numbers; {REMEDY}")
        if not given.isfinite().all():
            raise LifelongError(f"the weights {file} are damaged: '{name}' holds NaN or infinity; {REMEDY}")
        tensors[name] = given.to(wanted.dtype)
    unexpected = sorted(set(tensors) - set(expected))
    if unexpected:
        raise LifelongError(f"{where}: '{unexpected[0]}' is unexpected; {REMEDY}")


def digest(tensors: dict[str, Tensor]) -> str:
    """Compute a checksum of the used weights: 16 hexadecimal digits, independent of how the file was written."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name} {list(tensors[name].shape)}\n".encode())
        total.update(tensors[name].contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
