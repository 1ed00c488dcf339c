"""Trial of a registered measure on synthetic tasks."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.task import Normalization
from lifelong.errors import require
from lifelong.relatedness.experts import EarlierExperts
from lifelong.relatedness.measures import Measure, Sample, measure_divergences
from lifelong.settings.arguments import checked
from lifelong.settings.par import RelatednessSettings
from lifelong.settings.sockets import MEASURES
from lifelong.storage import Tree, load_tree, save_tree

SIDE = 4
CLASSES = 3
EACH = 30
"""Height and width of the images, classes of a task, images of a class."""

FAMILIES = (0, 1, 0, 1)
"""Of the tasks: those of a family have the same classes, with other noise."""

NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@checked
def check_measure(name: str) -> None:
    """Try a registered measure on synthetic tasks; one that needs experts is given a linear one of each earlier task.

    Checked: it gives a finite number for each earlier task, none for the first; what it keeps survives a file and gives the same numbers;
    it does not change its input; a task drawn again is nearer than another one; the numbers do not depend on later tasks; its map to
    distances is monotone, from 0 for 0, and stays in [0, 1]; it says if it needs experts.

    Raises:
        ConformanceError: what is broken.
        LifelongError: there is no such measure.
    """
    settings, measure = RelatednessSettings(keep_features=True), MEASURES[name]()
    _check_map(name, measure)
    experts = {family: _linear_expert(family) for family in set(FAMILIES)}
    kept: list[Tree] = []
    samples: list[Sample] = []
    found = []
    for seed, family in enumerate(FAMILIES):
        sample = _made(seed, family, experts if measure.needs_experts else None)
        before = sample.features.clone()
        sample = replace(sample, first=kept[0] if kept else None)
        own = measure.keep(sample, settings)
        samples.append(replace(sample, own=own))
        found.append(measure_divergences(name, samples[-1], kept, settings))
        kept.append(own)
        require(bool(torch.equal(sample.features, before)), f"measure '{name}' changes the features that it is given")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kept.safetensors"
        save_tree(file, kept)
        again = load_tree(file)
    for index, sample in enumerate(samples):
        # Without what it keeps of the task itself: whoever calls a measure need not have asked for that before.
        same = torch.equal(measure_divergences(name, replace(sample, own=None), again[:index], settings), found[index])
        require(bool(same), f"measure '{name}': what it keeps does not survive a file: task {index} is measured otherwise by it")
    require(bool(found[2][0] < found[2][1]), f"measure '{name}': a task drawn again is not nearer than another one: {found[2].tolist()}")
    require(bool(found[3][1] < found[3][0]), f"measure '{name}': a task drawn again is not nearer than another one: {found[3].tolist()}")


def _check_map(name: str, measure: Measure) -> None:
    grid = torch.cat([torch.linspace(-1, 3, 401, dtype=torch.float64), torch.tensor([50.0, 1e9], dtype=torch.float64)])
    mapped = measure.to_distance(grid)
    within = bool(((mapped >= 0) & (mapped <= 1)).all())
    require(within, f"measure '{name}': its map to distances leaves [0, 1]")
    require(bool((mapped.diff() >= 0).all()), f"measure '{name}': its map to distances falls somewhere")
    at_zero = float(measure.to_distance(torch.zeros((), dtype=torch.float64)))
    require(at_zero == 0, f"measure '{name}': its map to distances takes 0 to {at_zero:g}")


def _made(seed: int, family: int, experts: Mapping[int, tuple[nn.Module, ...]] | None) -> Sample:
    """Make a sample of noisy patterns, which tasks of a family share; its features are the pixels."""
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    noise = torch.randn(len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(100 + seed))
    images = (128 + 48 * (_patterns(family)[labels] + noise / 2)).clamp(0, 255).to(torch.uint8)
    earlier = EarlierExperts(lambda task: experts[FAMILIES[task]], images, NORMALIZATION) if experts is not None else None
    return Sample(normalize(images, NORMALIZATION).flatten(1).double(), labels, CLASSES, EACH, experts=earlier)


def _patterns(family: int) -> Tensor:
    return torch.randn(CLASSES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(family))


def _linear_expert(family: int) -> tuple[nn.Module, ...]:
    """Return an expert that tells the patterns of a family apart, and its head."""
    patterns = _patterns(family).flatten(1)
    with torch.device("meta"):  # Draws no number from a generator of the program.
        layers = nn.Linear(patterns.shape[1], CLASSES), nn.Linear(CLASSES, CLASSES)
    expert, head = (layer.to_empty(device="cpu").requires_grad_(False) for layer in layers)
    expert.weight.copy_(patterns / patterns.shape[1])
    head.weight.copy_(4 * torch.eye(CLASSES))
    for layer in (expert, head):
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), expert), head
