import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lifelong.data.sources import Sources
from lifelong.data.task import Augmentation, Stream
from lifelong.errors import LifelongError
from lifelong.streams.named_streams import open_stream, stream_names
from lifelong.streams.splits import cifar100_10, cifar100_order
from tests.parquet_files import numbered, png, write_parquet

ROOT = Path(__file__).parents[2]

# The appendix of the benchmark facts: class orders of PAR's runs, blocks of ten.
ORDERS = {
    0: """97 66 33 19 34 3 12 2 13 92 80 5 27 60 36 11 9 25 31 87 58 44 94 95 64 61 62 86 79 98 93 51 22 59 26 37 83 73 78 1
          30 55 85 47 41 20 63 43 90 88 21 40 15 75 4 0 52 23 35 53 84 69 16 10 71 81 6 91 56 76 38 50 57 74 49 18 24 39 48 99
          8 65 89 67 54 32 42 14 68 45 96 77 46 28 72 17 29 82 7 70""",
    1: """68 60 90 97 15 26 40 87 73 0 2 21 92 76 64 35 83 28 46 45 71 70 55 3 8 47 74 94 86 31 11 34 32 96 69 22 82 95 18 52
          13 33 16 84 53 75 57 36 30 12 5 93 9 51 72 56 78 65 88 24 44 4 27 37 48 62 14 50 43 42 29 63 81 91 67 23 39 85 10 41
          25 59 38 80 54 17 20 6 79 98 7 61 19 58 89 66 49 1 99 77""",
    2: """72 45 38 48 97 37 0 73 36 20 51 58 61 21 95 64 25 43 53 23 39 91 24 57 9 15 33 11 88 62 59 77 18 12 19 32 6 5 87 63
          60 1 42 81 2 79 41 31 4 7 30 68 22 76 16 65 28 69 47 71 49 54 29 55 80 14 34 74 94 85 98 84 89 44 3 75 96 46 10 13
          50 56 40 83 17 67 99 35 86 8 52 90 70 66 27 82 26 93 92 78""",
}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_class_order_of_cifar100(seed):
    assert cifar100_order(seed) == [int(word) for word in ORDERS[seed].split()]


def test_cifar100_10_on_made_images(tmp_path):
    labels = [number % 100 for number in range(2000)]
    for start, split in ((0, "train"), (2000, "test")):
        encoded = [png(pixels) for pixels in numbered(2000, start=start)]
        write_parquet(tmp_path / "cifar100" / f"{split}-0.parquet", encoded, {"label": labels})
    stream = open_stream("cifar100-10", 0, Sources(tmp_path, cache=tmp_path / "cache"))
    described = stream.describe()
    assert [(one.train, one.valid, one.test, one.image_size) for one in described] == [(180, 20, 200, 32)] * 10
    assert described[0].classes == ("wolf", "raccoon", "forest", "cattle", "fox", "bear", "bridge", "baby", "bus", "tulip")
    assert len({word for one in described for word in one.classes}) == 100
    first = stream[0]
    assert first.augmentation == Augmentation(4, True, 63 / 255)
    assert first.normalization.mean == (0.5071, 0.4867, 0.4408)
    assert first.normalization.std == (0.2675, 0.2565, 0.2761)
    assert cifar100_10(0).tasks[9].classes == tuple(int(word) for word in ORDERS[0].split()[90:])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits(seed):
    stream = open_stream("digits", seed, Sources())
    assert isinstance(stream, Stream)
    described = stream.describe()
    assert len(stream) >= 6
    assert all(one.image_size == 8 and not one.notes for one in described)
    changes = " ".join(one.transform for one in described)
    for change in ("inverted", "rotated", "labels shifted"):
        assert change in changes
    plain = [one for one in described if not one.transform]
    by_classes = {}
    for one in plain:
        by_classes.setdefault(frozenset(one.classes), []).append(one.train / len(one.classes))
    assert len(by_classes) >= 2, "other classes"
    assert any(max(counts) >= 5 * min(counts) for counts in by_classes.values()), "the same classes with few and with many"


def test_digits_never_judge_by_what_was_learned_from():
    """By the pixels themselves: transforms are undone, then no held-out image is any task's training image."""
    stream = open_stream("digits", 0, Sources())
    train, valid, test = set(), set(), set()
    for one, text in zip(stream, stream.describe(), strict=True):
        assert not one.augmentation.flip
        for split, seen in ((one.train, train), (one.valid, valid), (one.test, test)):
            images = 255 - split.images if "inverted" in text.transform else split.images
            images = images.rot90(-1, (2, 3)) if "rotated by 90" in text.transform else images
            seen |= {bytes(image.contiguous().numpy().data) for image in images[:, 0]}
    everything = {bytes(image.contiguous().numpy().data) for image in Sources().open("digits").images("train", torch.arange(1797), 8)[:, 0]}
    assert train | valid | test <= everything
    assert not train & valid
    assert not train & test
    assert not valid & test


def test_names_cost_nothing():
    script = (
        "import sys; from lifelong.streams.named_streams import stream_names; print(*stream_names());"
        " sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pyarrow', 'sklearn', 'datasets')))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(stream_names())


def test_unknown_streams(tmp_path):
    with pytest.raises(LifelongError, match=r"unknown stream 'digit'; did you mean 'digits'\?"):
        open_stream("digit", 0, Sources())
    with pytest.raises(LifelongError, match="no stream file"):
        open_stream(str(tmp_path / "mine.toml"), 0, Sources())


# -- real images -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(data_folder, tmp_path_factory) -> Sources:
    return Sources(data_folder, cache=tmp_path_factory.mktemp("cache"))


def test_the_example_of_real_images(real):
    stream = open_stream(str(ROOT / "examples" / "real.toml"), 0, real)
    described = stream.describe()
    assert [(one.name, one.train, one.valid) for one in described] == [
        ("cifar10-a", 4000, 1000),
        ("mnist", 400, 200),
        ("dtd", 400, 200),
        ("fashion", 400, 200),
        ("cifar10-b", 400, 200),
    ]
    assert described[0].classes == described[4].classes
    task = stream[2]
    assert task.valid.images.shape == (200, 3, 32, 32)
    assert task.valid.labels.bincount().tolist() == [20] * 10
    again = open_stream(str(ROOT / "examples" / "real-mnist-again.toml"), 0, real)
    assert again.describe()[:5] == described, "a task at the end leaves the others as they were"
    assert again.describe()[5].source == "mnist"


COPIES = "the source holds the same content among the stream's validation or test images."


def test_a_stream_of_real_cifar100(real):
    described = open_stream("cifar100-10", 0, real).describe()
    assert [one.valid for one in described] == [450] * 10
    assert sum(one.test for one in described) == 9999
    # This copy holds ten images twice; those that fell into train and valid are left out of train, and said to be.
    left_out = [4050 - one.train for one in described]
    assert 0 < sum(left_out) <= 10
    for one, count in zip(described, left_out, strict=True):
        assert one.notes == ((f"{count} training image{'s' * (count > 1)} left out: {COPIES}",) if count else ())
