"""Finding, reading and checking the weights of the networks that this library builds itself."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lifelong.errors import LifelongError
from lifelong.extras import require_extra
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.networks.squeezenet import SqueezeNet

HUB_ID = "timm/resnet18.tv_in1k"
HUB_FILE = "model.safetensors"
"""The paper's weights: torchvision's ResNet-18, IMAGENET1K_V1."""

PATIENCE = 20.0
"""Seconds to wait for the hub's first answer."""

REMEDY = "give the weights of a torchvision ResNet-18 as safetensors, up to layer3 or whole, with --weights"
"""What to do about weights of `resnet18` that do not fit."""


class Layout(NamedTuple):
    """A network that is known by the names of its tensors, torchvision's.

    Attributes:
        label: what it is, as it stands in messages.
        mark: the name of a tensor that only it has.
        classifier: how the names of the tensors begin that features do not depend on.
        make: makes the network that tensors of these names belong to, and says what it is.
    """

    label: str
    mark: str
    classifier: str
    make: Callable[[Mapping[str, Tensor]], tuple[nn.Module, str]]


def _resnet18(tensors: Mapping[str, Tensor]) -> tuple[nn.Module, str]:
    last = "layer4" if any(name.startswith("layer4.") for name in tensors) else "layer3"
    return ImageNetResNet18(last=last), f"a ResNet-18 that ends at {last}"


RESNET18 = Layout("a torchvision ResNet-18", "layer1.0.conv1.weight", "fc.", _resnet18)
SQUEEZENET = Layout(
    "a torchvision SqueezeNet 1.1", "features.3.squeeze.weight", "classifier.", lambda tensors: (SqueezeNet(), "a SqueezeNet 1.1")
)
LAYOUTS = (RESNET18, SQUEEZENET)


def layout_of(tensors: Mapping[str, Tensor], file: Path) -> Layout:
    """Return the layout that tensors have by their names.

    Raises:
        LifelongError: no known network has such names.
    """
    for layout in LAYOUTS:
        if layout.mark in tensors:
            return layout
    known = " or ".join(layout.label for layout in LAYOUTS)
    raise LifelongError(
        f"the weights {file} are of no network that is known by its tensors' names; give those of {known} (safetensors), "
        "or name the network: timm:NAME, torchvision:NAME or hf:ID, with --weights"
    )


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
    return load_as(RESNET18, read(file), file, REMEDY)


def load_as(layout: Layout, tensors: dict[str, Tensor], file: Path, remedy: str) -> tuple[nn.Module, str]:
    """Build a network of a layout from the tensors of a file, and return their digest too.

    Raises:
        LifelongError: they do not fit it.
    """
    tensors = _relevant(tensors, layout.classifier)
    with torch.device("meta"):  # no memory, and no random numbers drawn for weights that are replaced
        network, label = layout.make(tensors)
    tensors = checked_tensors(tensors, network.state_dict(), label, file, remedy)
    network.load_state_dict(tensors, assign=True)
    return network, digest(tensors)


def saved_network(layout: Layout, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, str]:
    """Build the network of `load_as` from tensors that a run keeps of it, and return their digest too."""
    with torch.device("meta"):
        network, _ = layout.make(tensors)
    network.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    return network, digest(network.state_dict())


def fetch(repository: str = HUB_ID, name: str = HUB_FILE) -> Path:
    """Get a file from the hub, or from its cache on this machine.

    Raises:
        LifelongError: neither has them, or the extra `hub` is not installed.
    """
    require_extra(
        "hub", ("huggingface_hub",), f"downloading the extractor's weights {HUB_ID}/{HUB_FILE}", "or give a file with --weights FILE"
    )
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not fetched before
    try:
        # First, since it fails at once if the hub is out of reach; the download would retry for half a minute.
        huggingface_hub.HfApi().model_info(repository, timeout=PATIENCE)
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except Exception as error:  # of the network, the disk or the hub; their types change with the hub's library
        line = (str(error).strip() or "no answer").splitlines()[0]
        raise LifelongError(
            f"cannot download the extractor's weights {repository}/{name} ({type(error).__name__}: {line}); "
            "connect to the network, or give a file with --weights, or start a run with --extractor pixels"
        ) from error


def read(file: Path, remedy: str = REMEDY) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Args:
        file: the file.
        remedy: what to do if it cannot be read.

    Raises:
        LifelongError: it is missing, truncated, or not a safetensors file.
    """
    if not os.path.isfile(file):
        raise LifelongError(f"there is no weights file {file}; {remedy}, or use --download, or start a run with --extractor pixels")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise LifelongError(f"cannot read the weights {file}: truncated, or not a safetensors file ({error}); {remedy}") from error


def _relevant(tensors: dict[str, Tensor], classifier: str) -> dict[str, Tensor]:
    """Remove the classifier, and reset the batch counters; features depend on neither."""
    dropped = (name for name in tensors if name.startswith(classifier) or name.endswith("num_batches_tracked"))
    kept = {name: tensors[name] for name in tensors.keys() - set(dropped)}
    counters = {name.removesuffix("running_var") + "num_batches_tracked" for name in kept if name.endswith("running_var")}
    return kept | {name: torch.zeros((), dtype=torch.int64) for name in sorted(counters)}


def checked_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], label: str, file: Path, remedy: str
) -> dict[str, Tensor]:
    """Return tensors in the types of a network's own.

    Args:
        tensors: by name, as they were read.
        expected: the network's state.
        label: what it is.
        file: where the tensors came from.
        remedy: what to do if they do not fit.

    Raises:
        LifelongError: names the first tensor that is missing, superfluous, of another shape, or not finite numbers.
    """
    where = f"the weights {file} do not fit {label}"
    fitting = {}
    for name, wanted in expected.items():
        if name not in tensors and name.endswith("num_batches_tracked"):
            continue  # its layer's own tensors will be found missing
        if name not in tensors:
            raise LifelongError(f"{where}: '{name}' is missing; {remedy}")
        given = tensors[name]
        if given.shape != wanted.shape:
            raise LifelongError(f"{where}: '{name}' has shape {list(given.shape)}, not {list(wanted.shape)}; {remedy}")
        if wanted.is_floating_point() and not given.is_floating_point():
            raise LifelongError(f"{where}: '{name}' holds {str(given.dtype).removeprefix('torch.')}, not floating-point numbers; {remedy}")
        if not given.isfinite().all():
            raise LifelongError(f"the weights {file} are damaged: '{name}' holds NaN or infinity; {remedy}")
        fitting[name] = given.to(wanted.dtype)
    unexpected = sorted(set(tensors) - set(expected))
    if unexpected:
        raise LifelongError(f"{where}: '{unexpected[0]}' is unexpected; {remedy}")
    return fitting


def digest(tensors: dict[str, Tensor]) -> str:
    """Compute a checksum of the used weights: 16 hexadecimal digits, independent of how the file was written."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name} {list(tensors[name].shape)}\n".encode())
        total.update(tensors[name].contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
