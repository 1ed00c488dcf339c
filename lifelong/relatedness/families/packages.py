"""What the families of extractors from other packages share: importing the package, and loading its network and weights.

The networks of timm, torchvision and transformers are built by their package, which is imported when one is asked for. Their weights come
from a safetensors file (--weights), or with --download from where the package has them.
"""

import contextlib
import importlib
import logging
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from lifelong.data.augment import between
from lifelong.data.task import IMAGENET, Normalization
from lifelong.errors import LifelongError, near_miss
from lifelong.networks.foreign import About, ForeignNetwork
from lifelong.relatedness.extractor import Extractor, NetworkExtractor
from lifelong.relatedness.weights import digest

Open = Callable[..., Extractor]


def opener(name: str, load: Callable[[Path | None, bool], ForeignNetwork], rebuild: Callable[[About], ForeignNetwork]) -> Open:
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
                load_eval(network, {key: tensor.cpu() for key, tensor in saved.items()})
        return NetworkExtractor(name, network, digest(network.state_dict()), feature_input=feature_input, device=device)

    return opened


def imported(name: str, extractor: str) -> ModuleType:
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


def meant(name: str, known: list[str]) -> str:
    """Return "; did you mean ...?" where a known name is near; else nothing."""
    close = near_miss(name, known)
    return close if "did you mean" in close else ""


def remedy_for(label: str) -> str:
    """Say how a package's network gets its weights."""
    return f"give the weights of {label} as safetensors with --weights, or use --download without it and without LIFELONG_WEIGHTS"


def no_weights(extractor: str, more: str = "") -> NoReturn:
    """Refuse an extractor whose weights are neither given nor may be downloaded."""
    raise LifelongError(
        f"the extractor '{extractor}' needs pretrained weights: give a safetensors file with --weights, {more}or use --download"
    )


def described(
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


def side_of(size: object) -> int | None:
    """Return the side of the images that a package says its network was trained on: a number, or a list that ends in it."""
    last = size[-1] if isinstance(size, (list, tuple)) and size else size
    return last if isinstance(last, int) else None


def load_eval(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights into a network, and set it to evaluation."""
    network.load_state_dict(dict(tensors))
    network.eval()


def with_counters(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
