"""What is trained for a task beside its head on a frozen network: adapters in the network's last stage, or a small network of cells.

adapted   the last stage with low-rank convolutions added, and a classifier on its averaged maps; it starts as the frozen network
side      PAR's cells on the images at their own size, from random weights, and a classifier: it sees what the frozen network does not

Neither changes the frozen network. The images of both have ImageNet's normalization.

Source: `lifelong.networks.adapters`; a network beside a frozen one: side-tuning (Zhang et al., ECCV 2020).
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.task import IMAGENET, Split, Task
from lifelong.devices import exact
from lifelong.methods.frozen_network import FrozenNetwork
from lifelong.methods.linear_probe import as_module
from lifelong.methods.method import Context, LearnRecord
from lifelong.networks.adapters import AdaptedStage
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import genotype
from lifelong.networks.pretrained import FrozenFeatures, Staged
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.settings.par import PARSettings
from lifelong.training.closed_form import Rows, exact_rows, logistic
from lifelong.training.examples import Examples, batched, image_examples
from lifelong.training.select import fit_selected

Kind = Literal["adapted", "side"]
"""What is trained, by its name in `Classifiers`."""

TRAINED: dict[str, tuple[Kind, ...]] = {"head": (), "adapter": ("adapted",), "side": ("side",), "auto": ("adapted", "side")}
"""What each setting of `expert` tries, in this order, until the task is answered well enough."""

WORDS: dict[Kind, str] = {"adapted": "adapters", "side": "a side network"}
"""How each is called in a reason."""

START_PENALTY = 0.1
"""L2 penalty of the logistic regression that the classifier behind the adapters starts as."""


class Part:
    """Images of a split in which a task is learned, each also mirrored where that is wanted, and their features.

    Args:
        frozen: gives the features.
        split: the images.
        classes: of the task.
        flip: whether to add each image mirrored.
    """

    def __init__(self, frozen: FrozenNetwork, split: Split, classes: int, *, flip: bool = False) -> None:
        self._images = torch.cat([split.images, split.images.flip(3)]) if flip else split.images
        self.features = frozen.features(self._images)
        self.rows = exact_rows(self.features, split.labels.repeat(2 if flip else 1), classes)

    def mapped(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Compute what a function makes of prepared images and their features, in steps of bounded memory."""
        places = torch.arange(len(self._images), device=self._images.device)
        return batched(lambda part: function(normalize(self._images[part], IMAGENET), self.features[part]), places)


def train_beside(
    kind: Kind,
    frozen: FrozenFeatures,
    train: Part,
    valid: Part,
    task: Task,
    settings: PARSettings,
    context: Context,
    record: LearnRecord,
) -> tuple[nn.Sequential, Float64[Tensor, "n c"]]:
    """Train something for a task.

    Args:
        kind: what.
        frozen: the network.
        train, valid: the task's images.
        task: the task.
        settings: of PAR.
        context: of learning it.
        record: takes what training cost.

    Returns:
        The network, and its log-probabilities on the validation images.
    """
    if kind == "adapted":
        return _train_adapters(frozen, train, valid, settings, context, record)
    return _train_side(task, settings, context, record)


def adapted_network(frozen: FrozenFeatures, settings: PARSettings, classes: int, device: torch.device | str) -> nn.Sequential:
    """Build an adapted last stage, as yet the frozen one, with a classifier."""
    return _adapted(frozen, settings, nn.Linear(last_features(frozen), classes), device)


def side_network(settings: PARSettings, classes: int, device: torch.device | str) -> nn.Sequential:
    """Build a network of cells with a classifier."""
    cells = CellNetwork(genotype(settings.fixed_cell), settings.side_channels, settings.cells, reduce_bn=settings.reduce_bn)
    return nn.Sequential(cells, nn.Linear(cells.feature_dim, classes)).to(device=device, dtype=torch.get_default_dtype())


def maps_before_last(frozen: FrozenFeatures, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c _h _w"]:
    """Compute the maps before the network's last stage."""
    network = frozen.network
    assert isinstance(network, ImageNetResNet18)
    return list(itertools.islice(network.maps(frozen.resized(images)), len(network.stages) - 1))[-1][1]


def last_features(frozen: FrozenFeatures) -> int:
    """Return the number of features of the network's last stage; 0 if it names no stages."""
    network = frozen.network
    return list(network.stages.values())[-1] if isinstance(network, Staged) else 0


def all_stages(network: nn.Module) -> tuple[str, ...]:
    """Return all stages of a network; none for one that names none."""
    return tuple(network.stages) if isinstance(network, Staged) else ()


def _train_adapters(
    frozen: FrozenFeatures, train: Part, valid: Part, settings: PARSettings, context: Context, record: LearnRecord
) -> tuple[nn.Sequential, Float64[Tensor, "n c"]]:
    with context.timed("features", record):
        maps = [part.mapped(lambda images, _: maps_before_last(frozen, images)) for part in (train, valid)]
    last = Rows(train.rows.features[:, -last_features(frozen) :], train.rows.labels, train.rows.classes)
    with context.seeded("adapter"):
        network = _adapted(frozen, settings, as_module(logistic(last, START_PENALTY)), context.device)
    labels, judged = (part.rows.labels.to(context.device) for part in (train, valid))
    outcome = fit_selected(network, Examples(maps[0], labels, maps[1], judged), network, context.training, context.stage("train"))
    record.trained(outcome)
    return network, exact(batched(network, maps[1])).log_softmax(dim=1)


def _adapted(frozen: FrozenFeatures, settings: PARSettings, classifier: nn.Linear, device: torch.device | str) -> nn.Sequential:
    stage = AdaptedStage(list(getattr(frozen.network, all_stages(frozen.network)[-1])), settings.adapter_rank)
    return nn.Sequential(stage, classifier).to(device=device, dtype=torch.get_default_dtype())


def _train_side(task: Task, settings: PARSettings, context: Context, record: LearnRecord) -> tuple[nn.Sequential, Float64[Tensor, "n c"]]:
    with context.seeded("side"):
        network = side_network(settings, len(task.classes), context.device)
    training = replace(context.training, epochs=settings.side_epochs, lr=settings.side_lr)
    examples = replace(image_examples(task, augmented=training.augment), normalization=IMAGENET)
    outcome = fit_selected(network, examples, network, training, context.stage("side"))
    record.trained(outcome, "side")
    return network, exact(batched(network, examples.valid, examples.prepare)).log_softmax(dim=1)
