"""Extractors that are named by a prefix: a file of weights, or a network of timm, torchvision or transformers.

`file:WEIGHTS` is a network that this library builds itself, known by the names of the file's tensors; the file is part of its name. The
others are built by their package, which is imported when one is asked for. Their weights come from a safetensors file (--weights), or
with --download from where the package has them.
"""

import contextlib
import importlib
import json
import logging
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from lifelong.data.augment import between
from lifelong.data.task import IMAGENET, Normalization
from lifelong.errors import LifelongError, near_miss
from lifelong.networks.foreign import OUTPUT, About, ForeignNetwork, HubNetwork, TimmNetwork, TorchvisionNetwork, examined, quarters
from lifelong.opening import read_json
from lifelong.relatedness.extractor import Extractor, NetworkExtractor
from lifelong.relatedness.weights import RESNET18, SQUEEZENET, checked_tensors, digest, fetch, layout_of, load_as, read, saved_network

Open = Callable[..., Extractor]


def of_file(path: str) -> Open:
    """Find the network of a safetensors file by the names of its tensors."""
    remedy = f"give a safetensors file of {RESNET18.label} or {SQUEEZENET.label} as file:PATH"

    def opened(
        *, weights: Path | None, download: bool, feature_input: str, device: torch.device | str, saved: Mapping[str, Tensor] | None = None
    ) -> Extractor:
        file = Path(path)
        if saved is not None:
            network, checksum = saved_network(layout_of(saved, file), saved)
        else:
            tensors = read(file, remedy)
            network, checksum = load_as(layout_of(tensors, file), tensors, file, remedy)
        return NetworkExtractor(f"file:{path}", network, checksum, feature_input=feature_input, device=device)

    return opened


def of_timm(name: str) -> Open:
    """Find a network of timm by its name there, which may end in the name of its weights ("resnet18.a1_in1k").

    Raises:
        LifelongError: timm is not installed, or has no such network.
    """
    timm = _package("timm", f"timm:{name}")
    if not timm.is_model(name):
        raise LifelongError(f"timm has no network '{name}'{_meant(name, timm.list_models())}; see timm.list_models()")

    def make() -> nn.Module:
        return timm.create_model(name, pretrained=False, num_classes=0)

    def load(weights: Path | None, download: bool) -> ForeignNetwork:
        network = make()
        known: Mapping[str, Any] = getattr(network, "pretrained_cfg", {})
        label = f"timm's {name}"
        repository = str(known.get("hf_hub_id") or "")
        if weights is None and not (download and repository):
            _no_weights(f"timm:{name}", "" if repository else "timm names no hub for it; ")
        file = weights if weights is not None else fetch(repository, "model.safetensors")
        heads = known.get("classifier") or ()
        dropped = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        expected = network.state_dict()
        remedy = _remedy(f"timm's {name}")
        found = {key: tensor for key, tensor in read(file, remedy).items() if key in expected or not (dropped and key.startswith(dropped))}
        _load(network, checked_tensors(_with_counters(found, expected), expected, label, file, remedy))
        about = _about(known.get("mean"), known.get("std"), quarters(TimmNetwork.described(network)))
        return examined(lambda about: TimmNetwork(network, about), about, _side(known.get("input_size")))

    return _opener(f"timm:{name}", load, lambda about: TimmNetwork(make(), about))


def of_torchvision(name: str) -> Open:
    """Find a classifier of images of torchvision by its name there.

    Raises:
        LifelongError: torchvision is not installed, or has no such network.
    """
    models = _package("torchvision.models", f"torchvision:{name}")
    names = models.list_models(module=models)
    if name not in names:
        raise LifelongError(f"torchvision has no classifier '{name}'{_meant(name, names)}; see torchvision.models.list_models()")

    def make() -> nn.Module:
        network = models.get_model(name, weights=None)
        if hasattr(network, "transform_input"):
            network.transform_input = True  # as its pretrained weights want it
        return _without_classifier(network)

    def load(weights: Path | None, download: bool) -> ForeignNetwork:
        whole = models.get_model(name, weights=None)
        remedy, label = _remedy(f"torchvision's {name}"), f"torchvision's {name}"
        published = models.get_model_weights(name).DEFAULT
        preparation = published.transforms()
        side = _side(getattr(preparation, "crop_size", None))
        network = make()
        expected = network.state_dict()
        if weights is not None:
            tensors, file = read(weights, remedy), weights
        elif download:
            tensors, file = _published(published), Path(published.url)
        else:
            _no_weights(f"torchvision:{name}")
        dropped = whole.state_dict().keys() - expected.keys()
        found = _with_counters({key: tensor for key, tensor in tensors.items() if key not in dropped}, expected)
        _load(network, checked_tensors(found, expected, label, file, remedy))
        about = _about(getattr(preparation, "mean", None), getattr(preparation, "std", None), _find_stages(network, side))
        return examined(lambda about: TorchvisionNetwork(_with_stages(network, about.stages), about), about, side)

    return _opener(f"torchvision:{name}", load, lambda about: TorchvisionNetwork(_with_stages(make(), about.stages), about))


def of_hf(repository: str) -> Open:
    """Find a network of images on the Hugging Face hub by its address there, such as "facebook/dinov2-small".

    Raises:
        LifelongError: transformers is not installed.
    """
    transformers = _package("transformers", f"hf:{repository}")

    def make(config: Any) -> nn.Module:
        return _tower(transformers.AutoModel.from_config(config))

    def load(weights: Path | None, download: bool) -> ForeignNetwork:
        if weights is None and not download:
            _no_weights(f"hf:{repository}", "with config.json beside it; ")
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
        side = _side(config.get("image_size"))
        states = [f"block{place}" for place in range(1, _count_states(network, side, file.parent, remedy))]
        about = _about(mean, std, quarters(states), config)
        return examined(lambda about: HubNetwork(network, about), about, side)

    def rebuilt(about: About) -> ForeignNetwork:
        config = dict(about.config)
        return HubNetwork(make(transformers.AutoConfig.for_model(config.pop("model_type"), **config)), about)

    return _opener(f"hf:{repository}", load, rebuilt)


def _opener(name: str, load: Callable[[Path | None, bool], ForeignNetwork], rebuild: Callable[[About], ForeignNetwork]) -> Open:
    """Return what opens an extractor of a package.

    Args:
        name: of the extractor.
        load: makes its network with the weights of a file, or downloaded.
        rebuild: makes it without weights.
    """

    def opened(
        *, weights: Path | None, download: bool, feature_input: str, device: torch.device | str, saved: Mapping[str, Tensor] | None = None
    ) -> Extractor:
        # The start weights that a package draws are replaced.
        with torch.random.fork_rng(devices=[]), _quiet():
            if saved is None:
                network = load(weights, download)
            else:
                network = rebuild(About.of(saved))
                _load(network, {key: tensor.cpu() for key, tensor in saved.items()})
        return NetworkExtractor(name, network, digest(network.state_dict()), feature_input=feature_input, device=device)

    return opened


def _package(name: str, extractor: str) -> ModuleType:
    """Import a package.

    Raises:
        LifelongError: it is not installed, or does not work here.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError:
        raise LifelongError(f"--extractor {extractor} needs {package}: pip install {package}") from None
    except RuntimeError as error:  # a torchvision of another PyTorch
        line = str(error).strip().partition("\n")[0]
        raise LifelongError(f"--extractor {extractor}: {package} does not fit this PyTorch ({line}); reinstall both together") from error


def _meant(name: str, known: list[str]) -> str:
    close = near_miss(name, known)
    return close if "did you mean" in close else ""


def _remedy(label: str) -> str:
    return f"give the weights of {label} as safetensors with --weights, or use --download without it and without LIFELONG_WEIGHTS"


def _no_weights(extractor: str, more: str = "") -> NoReturn:
    raise LifelongError(
        f"the extractor '{extractor}' needs pretrained weights: give a safetensors file with --weights, {more}or use --download"
    )


def _about(
    mean: tuple[float, ...] | list[float] | None,
    std: tuple[float, ...] | list[float] | None,
    stages: tuple[str, ...],
    config: dict[str, Any] | None = None,
) -> About:
    """Say what is known of a network before it is examined; without a normalization of its own it has ImageNet's."""
    own = Normalization(_three(mean), _three(std)) if mean and std else IMAGENET
    scale, shift = between(IMAGENET, own) if own != IMAGENET else ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    return About(scale, shift, None, dict.fromkeys(stages, 0), config or {})


def _three(values: tuple[float, ...] | list[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _side(size: object) -> int | None:
    """Return the side of the images that a package says its network was trained on: a number, or a list that ends in it."""
    last = size[-1] if isinstance(size, (list, tuple)) and size else size
    return last if isinstance(last, int) else None


def _load(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    network.load_state_dict(dict(tensors))
    network.eval()


def _with_counters(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Set the counters of batch norms to zero: features do not depend on them, and older files lack them."""
    return tensors | {name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep a package's remarks about weights that are left out from the terminal."""
    loggers = [logging.getLogger(name) for name in ("timm", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


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
