"""CTrL's streams: the published class orders, sizes and colours, and what their tasks hold."""

import json
import os
import re
import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.data.known_sources import CIFAR10, CIFAR100, DIGITS, DTD, FASHION
from lifelong.data.sources import Source, Sources
from lifelong.data.task import Augmentation
from lifelong.errors import LifelongError
from lifelong.streams import ctrl
from lifelong.streams.build import SpecStream
from lifelong.streams.named_streams import open_stream
from lifelong.streams.spec import SameAs, StreamSpec, TaskSpec
from tests.parquet_files import png, write_parquet
from tests.streams.made_sources import check_apart

STREAMS = {"s_minus": ctrl.s_minus, "s_plus": ctrl.s_plus, "s_in": ctrl.s_in, "s_out": ctrl.s_out, "s_pl": ctrl.s_pl, "s_long": ctrl.s_long}
SHORT = [name for name in STREAMS if name != "s_long"]
CLASSES = {"mnist": DIGITS, "svhn": DIGITS, "cifar10": CIFAR10, "fashion_mnist": FASHION, "dtd": DTD, "cifar100": CIFAR100}


def final_classes(spec: StreamSpec, task: TaskSpec) -> list[str]:
    """Class names in label order."""
    named = task.classes
    if isinstance(named, SameAs):
        earlier = next(other for other in spec.tasks if other.name == named.task)
        named = final_classes(spec, earlier)
    return [str(named[place]) for place in task.transform.order(len(named)).tolist()]  # ty: ignore


# -- what is drawn ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> dict:
    """All streams of CTrL for seeds 0 to 2, by CTrL's own code."""
    default = Path(__file__).resolve().parents[3] / "shared" / "facts" / "data"
    file = Path(os.environ.get("LIFELONG_FACTS", default)) / "ctrl_streams_seed012.json"
    if not file.is_file():
        pytest.skip(f"no {file}: set LIFELONG_FACTS to its folder to run this test")
    return json.loads(file.read_text())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("stream", STREAMS)
def test_classes_sizes_and_colours_are_those_of_ctrl(published, stream, seed):
    spec = STREAMS[stream](seed)
    for task, (classes, sizes, transform) in zip(spec.tasks, published[f"{stream}:{seed}"], strict=True):
        name = task.source.replace("_", "-")
        # "mnist 3 - three" there is class "3" of "mnist" here.
        assert [f"{name} {label}" for label in final_classes(spec, task)] == [word.split(" - ")[0] for word in classes]
        assert [task.train_per_class, task.valid_per_class, task.test_per_class] == sizes
        colour = re.search(r"\[(\d+), (\d+), (\d+)\]", transform)
        assert task.transform.background == (tuple(int(part) / 255 for part in colour.groups()) if colour else None)


def test_the_first_orders_of_seed_0():
    """The facts' table, in words, for where the file is not."""
    spec = ctrl.s_minus(0)
    assert [final_classes(spec, task) for task in spec.tasks] == [
        ["bird", "airplane", "ship", "deer", "frog", "horse", "dog", "truck", "automobile", "cat"],
        ["3", "2", "0", "9", "4", "1", "6", "7", "8", "5"],
        ["braided", "paisley", "bumpy", "swirly", "freckled", "banded", "crosshatched", "scaly", "lined", "sprinkled"],
        ["Dress", "T-shirt/top", "Coat", "Sneaker", "Trouser", "Sandal", "Shirt", "Ankle boot", "Bag", "Pullover"],
        ["9", "5", "4", "1", "3", "7", "6", "2", "0", "8"],
        ["bird", "airplane", "ship", "deer", "frog", "horse", "dog", "truck", "automobile", "cat"],
    ]
    out = ctrl.s_out(0)
    assert final_classes(out, out.tasks[5]) == ["cat", "bird", "airplane", "ship", "deer", "frog", "horse", "dog", "truck", "automobile"]
    pl = ctrl.s_pl(0)
    assert [final_classes(pl, task)[0] for task in pl.tasks] == ["3", "interlaced", "Ankle boot", "3", "truck"]


@pytest.mark.parametrize(("seed", "colours"), [(0, ("green", "blue")), (1, ("green", "blue")), (2, ("red", "blue"))])
def test_the_colours_of_s_in(seed, colours):
    tasks = ctrl.s_in(seed).tasks
    assert (tasks[0].name, tasks[5].name) == (f"1-mnist-{colours[0]}", f"6-mnist-{colours[1]}")
    assert all(task.transform.background is None for task in tasks[1:5])


@pytest.mark.parametrize(("seed", "large"), [(0, 28), (1, 32), (2, 36)])
def test_the_sources_and_sizes_of_s_long(seed, large):
    tasks = ctrl.s_long(seed).tasks
    assert sum(task.train_per_class == 1000 for task in tasks) == large
    if seed == 0:
        assert Counter(task.source for task in tasks) == {"mnist": 25, "fashion_mnist": 23, "cifar10": 21, "svhn": 16, "cifar100": 15}
        assert [sum(task.train_per_class == 1000 for task in part) for part in (tasks[:33], tasks[33:66], tasks[66:])] == [21, 7, 0]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_seed(seed):
    specs = {name: make(seed) for name, make in STREAMS.items()}
    assert specs["s_long"] == ctrl.s_long(seed)
    for name, spec in specs.items():
        for task in spec.tasks:
            labels = final_classes(spec, task)
            assert len(set(labels)) == len(labels) == (5 if name == "s_long" else 10)
            assert set(labels) <= set(CLASSES[task.source])
            assert task.augmentation == Augmentation(crop=4, flip=True)
            assert task.normalization is None
    sizes = [(task.train_per_class, task.valid_per_class) for task in specs["s_long"].tasks]
    assert set(sizes) == {(1000, 500), (5, 3)}
    assert set(sizes[66:]) == {(5, 3)}
    colours = [specs["s_in"].tasks[place].transform.background for place in (0, 5)]
    assert None not in colours
    assert colours[0] != colours[1]


# -- the sizes of the whole data sets --------------------------------------------------------------------------------------------

# Training and test images per class, as they are published.
WHOLE = {
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "svhn": (
        [4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659],
        [1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595],
    ),
    "cifar10": ([5000] * 10, [1000] * 10),
    "fashion_mnist": ([6000] * 10, [1000] * 10),
    "dtd": ([80] * 47, [40] * 47),
    "cifar100": ([500] * 100, [100] * 100),
}
TESTS = {"mnist": 9786, "svhn": 10000, "cifar10": 10000, "fashion_mnist": 10000, "dtd": 400}


class Labels:
    """A split of labels, with no images to them."""

    def __init__(self, counts: list[int], first: int) -> None:
        self.labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)))
        self._contents = np.arange(first, first + len(self.labels), dtype=np.uint64)

    def contents(self) -> np.ndarray:
        return self._contents

    def fingerprint(self) -> str:
        return str(self._contents[0])

    def images(self, indices, size):
        raise AssertionError("a description needs no image")


class WholeSources(Sources):
    """The whole data sets, without their images."""

    def open(self, name: str, base: Path | None = None) -> Source:
        first = 10**6 * list(WHOLE).index(name)
        pools = {"train": Labels(WHOLE[name][0], first), "test": Labels(WHOLE[name][1], first + 10**5)}
        return Source(name, CLASSES[name], True, "", pools)  # ty: ignore


@pytest.fixture(scope="module")
def whole() -> Sources:
    return WholeSources()


@pytest.mark.parametrize("stream", SHORT)
def test_sizes_on_the_whole_data_sets(whole, stream):
    large, small = (4000, 2000), (400, 200)
    last = {"s_plus": large, "s_pl": large, "s_in": (50, 30)}.get(stream, small)
    first = small if stream in ("s_plus", "s_pl") else large
    described = SpecStream(STREAMS[stream](0), 0, whole).describe()
    assert [(one.train, one.valid) for one in described] == [first, *[small] * (3 if stream == "s_pl" else 4), last]
    assert [one.test for one in described] == [TESTS[one.source] for one in described]
    for one in described:
        capped = {"mnist": "892 to 1000", "dtd": "40"}.get(one.source)
        assert one.notes == ((f"1000 test images per class were asked for; {capped} are there.",) if capped else ())


@pytest.mark.parametrize("seed", [0, 1])
def test_sizes_of_s_long_on_the_whole_data_sets(whole, seed):
    spec = ctrl.s_long(seed)
    described = SpecStream(spec, seed, whole).describe()
    assert len(described) == 100
    for task, one in zip(spec.tasks, described, strict=True):
        large = (2250, 250) if one.source == "cifar100" else (5000, 2500)
        assert (one.train, one.valid) == (large if task.train_per_class == 1000 else (25, 15))
        tests = sum(min(1000, WHOLE[one.source][1][CLASSES[one.source].index(name)]) for name in one.classes)
        assert one.test == tests
        assert tests == {"cifar100": 500}.get(one.source, 5000) or one.source == "mnist"


# -- images ----------------------------------------------------------------------------------------------------------------------

MADE = {"mnist": (30, 6), "svhn": (16, 5), "cifar10": (40, 4), "fashion_mnist": (16, 4), "dtd": (8, 4), "cifar100": (8, 2)}


def marked(number: int, size: int) -> np.ndarray:
    """A grey image of blocks whose brightness spells its number."""
    pixels = np.zeros((size, size), np.uint8)
    side = size // 4
    for place in range(16):
        row, column = divmod(place, 4)
        pixels[row * side : (row + 1) * side, column * side : (column + 1) * side] = 200 if number >> place & 1 else 20
    return pixels


def make(folder: Path, names: list[str], first: int = 0) -> None:
    """Small sources in the schema of the real ones, every image another one."""
    for name in names:
        size, colour = (28, False) if "mnist" in name else (48, True) if name == "dtd" else (32, True)
        for split, count in zip(("train", "test"), MADE[name], strict=True):
            labels = np.random.default_rng(2).permutation(np.repeat(np.arange(len(CLASSES[name])), count))
            grey = [marked(first + number, size) for number in range(len(labels))]
            first += len(labels)
            images = [png(np.repeat(pixels[:, :, None], 3, axis=2) if colour else pixels) for pixels in grey]
            column = "fine_label" if name == "cifar100" else "label"
            write_parquet(
                folder / name / f"{split}-00000.parquet", images, {column: labels}, image_column="img" if "cifar" in name else "image"
            )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make(folder, list(MADE))
    return folder


@pytest.fixture(scope="module")
def opened(made) -> Sources:
    return Sources(made, cache=made / "cache")


@pytest.mark.parametrize("stream", STREAMS)
def test_no_image_is_learned_from_and_judged_by(opened, stream):
    seed = 1
    counts = check_apart(SpecStream(STREAMS[stream](seed), seed, opened))
    assert all(counts.values())


def known(sources: Sources, name: str) -> dict[bytes, str]:
    """The class of every image of a source."""
    source = sources.open(name)
    found = {}
    for split in ("train", "test"):
        labels = source.labels(split)
        images = source.images(split, torch.arange(len(labels)), 32)
        found |= {bytes(image.numpy().data): source.classes[label] for image, label in zip(images, labels.tolist(), strict=True)}
    return found


def test_the_last_task_of_s_out_has_its_labels_shifted(opened):
    stream = open_stream("ctrl-s-out", 0, opened)
    first, last = stream[0], stream[5]
    assert last.classes == (first.classes[-1], *first.classes[:-1])
    assert "labels shifted by 1" in stream.describe()[5].transform
    names = known(opened, "cifar10")
    for task, shift in ((first, 0), (last, 1)):
        for split in (task.train, task.valid, task.test):
            for image, label in zip(split.images, split.labels.tolist(), strict=True):
                assert names[bytes(image.numpy().data)] == first.classes[(label - shift) % 10]


def test_the_backgrounds_of_s_in(opened):
    """The channel of the colour is full everywhere, the others are as they were; normalized, it is zero."""
    stream = open_stream("ctrl-s-in", 0, opened)
    names = known(opened, "mnist")
    first, last = stream[0], stream[5]
    assert first.classes == last.classes
    for task, channel in ((first, 1), (last, 2)):
        for split in (task.train, task.valid, task.test):
            assert (split.images[:, channel] == 255).all()
            rest = [place for place in range(3) if place != channel]
            for image, label in zip(split.images, split.labels.tolist(), strict=True):
                assert names[bytes(image[rest[0]].expand(3, 32, 32).contiguous().numpy().data)] == task.classes[label]
                assert torch.equal(image[rest[0]], image[rest[1]])
        assert (task.normalization.mean[channel], task.normalization.std[channel]) == (1.0, 1.0)


def test_tasks_are_normalized_by_their_own_training_images(opened):
    first, second = (open_stream("ctrl-s-pl", 0, opened)[place] for place in (0, 1))
    for task in (first, second):
        pixels = task.train.images.to(torch.float64) / 255
        assert task.normalization.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-9)
        assert task.normalization.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-9)
    assert first.normalization != second.normalization


def test_validation_images_of_s_long_are_originals_and_each_is_there_once(opened):
    stream = open_stream("ctrl-s-long", 0, opened)
    everything = {name: set(known(opened, name)) for name in MADE}
    for place in (0, 50, 99):
        images = [bytes(image.numpy().data) for image in stream[place].valid.images]
        assert len(set(images)) == len(images)
        assert set(images) <= everything[stream.describe()[place].source]


def test_seeds_decide(opened):
    for name in ("ctrl-s-minus", "ctrl-s-long"):
        first, again, other = (open_stream(name, seed, opened) for seed in (0, 0, 1))
        assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_a_stream_holds_one_task_at_a_time_and_decodes_nothing_twice(made, monkeypatch):
    earlier: list[weakref.ref] = []
    for round_ in range(2):
        stream = open_stream("ctrl-s-long", 0, Sources(made, cache=made / "cache"))
        for task in stream:
            assert not any(reference() is not None for reference in earlier)
            earlier = [weakref.ref(split.images) for split in (task.train, task.valid, task.test)]
            del task
        if round_ == 0:
            monkeypatch.setattr("lifelong.data.pools.decode_images", lambda *_: pytest.fail("an image was decoded again"))


def test_a_task_reads_its_own_images_alone(opened, monkeypatch):
    """What is decoded and kept on the disk is read where it is needed: 100 tasks cost no more at the start than one."""
    asked: list[int] = []
    read = Source.images
    monkeypatch.setattr(Source, "images", lambda self, split, indices, size: asked.append(len(indices)) or read(self, split, indices, size))
    stream = open_stream("ctrl-s-long", 0, opened)
    described = stream.describe()
    task = stream[40]
    assert asked == []
    assert len(task.valid) == described[40].valid
    assert asked == [described[40].valid]


def test_the_first_task_needs_no_pandas(made):
    """It would take a second of every start; some functions of pyarrow import it."""
    script = (
        "import sys; from pathlib import Path; from lifelong.data.sources import Sources;"
        " from lifelong.streams.named_streams import open_stream;"
        " print(len(open_stream('ctrl-s-long', 0, Sources(Path(sys.argv[1]), cache=Path(sys.argv[1]) / 'cache'))[0].train));"
        " sys.exit('pandas' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script, str(made)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_a_source_without_tests_is_refused(tmp_path, made):
    for name in ("dtd", "cifar10", "svhn", "fashion_mnist"):
        (tmp_path / name).symlink_to(made / name)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-00000.parquet").symlink_to(made / "mnist" / "train-00000.parquet")
    with pytest.raises(LifelongError, match="source 'mnist' has no test split"):
        open_stream("ctrl-s-minus", 0, Sources(tmp_path, cache=made / "cache")).describe()


# -- real images -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(data_folder, tmp_path_factory) -> Sources:
    """Real images where there are some, made ones of SVHN and the textures."""
    folder = tmp_path_factory.mktemp("real")
    for name in MADE:
        if (data_folder / name).is_dir():
            (folder / name).symlink_to(data_folder / name)
    make(folder, [name for name in MADE if not (folder / name).exists()])
    return Sources(folder, cache=tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("stream", SHORT)
def test_short_streams_of_real_images(real, stream):
    """The reduced copies here hold enough training images for all that CTrL asks for."""
    spec = STREAMS[stream](0)
    for task, one in zip(spec.tasks, SpecStream(spec, 0, real).describe(), strict=True):
        if one.source in ("mnist", "cifar10", "fashion_mnist") and real.open(one.source).labels("train").bincount().min() >= 800:
            left_out = sum(int(note.split()[0]) for note in one.notes if "left out" in note)
            assert one.train + one.valid + left_out == 10 * (task.train_per_class + task.valid_per_class)  # ty: ignore
            assert left_out <= 10


def test_a_task_of_real_images(real):
    if len(real.open("mnist").labels("train")) < 5000:
        pytest.skip("no real MNIST")
    task = open_stream("ctrl-s-in", 0, real)[0]
    assert task.train.images.shape[1:] == (3, 32, 32)
    assert (task.train.images[:, 1] == 255).all()
    assert 0.05 < task.normalization.mean[0] < 0.2, "black but for the digit"
