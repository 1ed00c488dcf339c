"""Golden: on real images and real ImageNet features, the paper's thresholds tell the same data drawn twice from other data."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lifelong.data.task import IMAGENET, statistics
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.relatedness.extractor import open_extractor
from lifelong.relatedness.groups import TaskGroups
from lifelong.settings.par import PARSettings


def draw(folder, source, classes, skip, each):
    """Images of some classes, the same number of each, in the file's order after the first `skip`."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / source / "train-00000.parquet", columns=["image", "label"])
    labels = np.asarray(table["label"])
    rows = np.concatenate([np.flatnonzero(labels == c)[skip : skip + each] for c in classes])
    encoded = [table["image"][int(row)].as_py() for row in rows]
    pictures = [Image.open(io.BytesIO(one["bytes"] if isinstance(one, dict) else one)).convert("RGB").resize((32, 32)) for one in encoded]
    images = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()
    return images, torch.arange(len(classes)).repeat_interleave(torch.tensor([(labels[rows] == c).sum() for c in classes]))


@pytest.fixture(scope="module")
def drawn(data_folder):
    ten = range(10)
    return {
        "cifar10 a": draw(data_folder, "cifar10", ten, 0, 30),
        "mnist a": draw(data_folder, "mnist", ten, 0, 30),
        "dtd": draw(data_folder, "dtd10", ten, 0, 30),
        "fashion": draw(data_folder, "fashion_mnist", ten, 0, 30),
        "mnist b": draw(data_folder, "mnist", ten, 30, 30),
        "cifar100": draw(data_folder, "cifar100", ten, 0, 30),
        "cifar10 b": draw(data_folder, "cifar10", ten, 30, 30),
    }


@pytest.mark.parametrize("fixed", [False, True], ids=["task normalization", "ImageNet normalization"])
def test_the_paper_thresholds_separate_real_tasks(drawn, weights_file, fixed):
    extractor = open_extractor("resnet18", weights=weights_file)
    settings = PARSettings(clamp="none")
    names, bank = list(drawn), PrototypeBank()
    values = torch.full((len(names), len(names)), torch.nan)
    for index, (images, labels) in enumerate(drawn.values()):
        features = extractor.features(images, IMAGENET if fixed else statistics(images))
        own = prototypes(features, labels, 10)
        values[index, :index] = divergences(features, labels, own, bank, settings)
        bank.add(own)
    related = {("mnist b", "mnist a"), ("cifar10 b", "cifar10 a")}
    for row, column in zip(*np.tril_indices(len(names), -1), strict=True):
        pair, distance = (names[row], names[column]), values[row, column].item()
        if pair in related:
            assert -0.2 < distance < 0.4, pair
        elif "cifar100" in pair:  # natural images of other classes
            assert distance > 0.6, pair
        else:
            assert distance > 1.2, pair
    assert values[names.index("mnist a"), 0] > 8

    groups = TaskGroups()
    for row in range(len(names)):
        decision = groups.decide(values[row, :row].double(), 300, settings)
        if decision.decision == "reuse-expert" and decision.group is not None:
            groups.join(decision.group, 300)
        else:
            groups.open(300)
    joined = [[names[task] for task in group] for group in groups.members]
    assert joined == [["cifar10 a", "cifar10 b"], ["mnist a", "mnist b"], ["dtd"], ["fashion"], ["cifar100"]]
