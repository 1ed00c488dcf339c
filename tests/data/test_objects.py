"""Tasks of Python objects: what they become, what is refused in one line. Held against plain arrays and the same images in files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

import lifelong
from lifelong import Task
from lifelong.data.objects import held_of
from lifelong.data.split_names import SPLITS
from lifelong.data.task import Augmentation, Normalization
from lifelong.errors import LifelongError

COUNT = 24
LABELS = np.arange(COUNT) % 3


def pixels(size: int = 8, count: int = COUNT, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def of(task: Task) -> torch.Tensor:
    """The training images of a task, as they were read."""
    return held_of(task).splits["train"].images


def test_every_form_of_the_same_images_is_the_same_task():
    rows = pixels()
    wanted = torch.from_numpy(rows).permute(0, 3, 1, 2)
    first = wanted.contiguous()
    forms: list[Any] = [
        rows,
        rows.astype(np.int64),
        rows.astype(np.uint16),
        rows.astype(np.float32),
        rows / 255,
        (rows / 255).astype(np.float32),
    ]
    forms += [first, first.numpy(), first.float() / 255, first.double(), first.numpy() / 255, first.int(), list(rows), list(first)]
    forms += [list(rows / 255), [Image.fromarray(row) for row in rows], np.array([*rows, None], dtype=object)[:-1], (row for row in rows)]
    for form in forms:
        found = of(Task.from_arrays(form, LABELS))
        assert found.dtype == torch.uint8
        assert torch.equal(found, wanted)


def test_grey_images_have_three_equal_channels():
    grey = pixels()[..., 0]
    wanted = torch.from_numpy(grey)[:, None].expand(-1, 3, -1, -1)
    for form in (grey, grey[..., None], grey[:, None], torch.from_numpy(grey), torch.from_numpy(grey)[:, None], list(grey)):
        assert torch.equal(of(Task.from_arrays(form, LABELS)), wanted)
    truth = grey > 127
    assert torch.equal(
        of(Task.from_arrays(truth, LABELS)), torch.from_numpy(truth)[:, None].expand(-1, 3, -1, -1) * torch.tensor(255, dtype=torch.uint8)
    )


def test_sixteen_bits_keep_the_upper_eight_as_in_files():
    deep = pixels().astype(np.uint16) * 257
    assert torch.equal(of(Task.from_arrays(deep, LABELS)), torch.from_numpy(pixels()).permute(0, 3, 1, 2))


def test_transparency_is_laid_over_white():
    clear = np.concatenate([pixels(), np.zeros((COUNT, 8, 8, 1), np.uint8)], axis=3)
    assert (of(Task.from_arrays(clear, LABELS)) == 255).all()
    assert (of(Task.from_arrays(clear.transpose(0, 3, 1, 2), LABELS)) == 255).all()


def test_images_whose_channels_could_be_first_or_last():
    """Square pictures are likelier than oblong ones; where both are square, a tensor has its channels first."""
    assert of(Task.from_arrays(np.zeros((COUNT, 3, 4, 4)), LABELS)).shape == (COUNT, 3, 4, 4)
    assert of(Task.from_arrays(np.zeros((COUNT, 4, 4, 3)), LABELS)).shape == (COUNT, 3, 4, 4)
    red = np.zeros((COUNT, 4, 4, 4), np.uint8)
    red[..., 0], red[..., 3] = 200, 255
    assert of(Task.from_arrays(red, LABELS))[0, :, 0, 0].tolist() == [200, 0, 0]
    assert of(Task.from_arrays(torch.from_numpy(red).permute(0, 3, 1, 2), LABELS))[0, :, 0, 0].tolist() == [200, 0, 0]


def test_pictures_of_mixed_sizes_are_cropped_and_resized_as_files_are(tmp_path):
    pictures = [Image.fromarray(pixels(40, 1, seed)[0][: 20 + seed]) for seed in range(COUNT)]
    task = Task.from_arrays(pictures, LABELS)
    assert of(task).shape == (COUNT, 3, 64, 64)
    assert "resized to 64×64" in held_of(task).notes[0]
    assert held_of(Task.from_arrays(pictures, LABELS, size=64)).notes == ()
    for number, picture in enumerate(pictures):
        for split in ("train",):
            place = tmp_path / "t" / split / "abc"[number % 3]
            place.mkdir(parents=True, exist_ok=True)
            picture.save(place / f"{number}.png")
    files = sorted((tmp_path / "t").rglob("*.png"), key=lambda file: int(file.stem))
    assert torch.equal(of(Task.from_arrays(files, LABELS, size=16)), of(Task.from_arrays(pictures, LABELS, size=16)))
    assert torch.equal(of(Task.from_arrays([file.read_bytes() for file in files], LABELS)), of(task))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (LABELS, ("0", "1", "2")),
        (LABELS + 1, ("1", "2", "3")),
        (LABELS * 5.0, ("0", "5", "10")),
        (torch.from_numpy(LABELS), ("0", "1", "2")),
        (LABELS[:, None].astype(np.uint8), ("0", "1", "2")),
        (["cat", "dog", "ant"] * 8, ("ant", "cat", "dog")),
        (np.array([f"img{place}" for place in (2, 10, 1)] * 8), ("img1", "img2", "img10")),
        ([torch.tensor(label) for label in LABELS], ("0", "1", "2")),
        ([np.array([label]) for label in LABELS], ("0", "1", "2")),
        ([np.int8(label) for label in LABELS], ("0", "1", "2")),
        (LABELS == 1, ("False", "True")),
        (list(LABELS == 1), ("False", "True")),
        (torch.from_numpy(LABELS == 1), ("False", "True")),
        ((label for label in LABELS), ("0", "1", "2")),
    ],
)
def test_labels_of_every_kind(labels, classes):
    task = Task.from_arrays(pixels(), labels)
    assert task.classes == classes


def test_labels_in_a_series():
    pandas = pytest.importorskip("pandas")
    for values in (LABELS, [str(label) for label in LABELS], pandas.Categorical(["abc"[label] for label in LABELS])):
        assert len(Task.from_arrays(pixels(), pandas.Series(values, index=range(100, 100 + COUNT))).classes) == 3
    with pytest.raises(LifelongError, match=r"label 3 (is missing|= nan is missing)"):
        Task.from_arrays(pixels(), pandas.Series([0.0, 1.0, 2.0, None, *[1.0] * 20]))
    with pytest.raises(LifelongError, match="label 1 is missing"):
        Task.from_arrays(pixels(), pandas.Series(["a", None, *["b"] * 22]))


def test_names_of_classes():
    task = Task.from_arrays(pixels(), LABELS, classes=["heron", "stork", "crane"])
    assert task.classes == ("heron", "stork", "crane")
    assert held_of(task).splits["train"].labels.tolist() == LABELS.tolist()
    named = Task.from_arrays(pixels(), [("heron", "stork", "crane")[label] for label in LABELS], classes=["heron", "stork", "crane"])
    assert named.classes == ("heron", "stork", "crane") or set(named.classes) == {"heron", "stork", "crane"}
    assert [named.classes[label] for label in held_of(named).splits["train"].labels] == [
        ("heron", "stork", "crane")[label] for label in LABELS
    ]


def test_a_class_without_images_is_left_out_and_said_so():
    task = Task.from_arrays(pixels(), LABELS, classes=["heron", "stork", "crane", "ibis"])
    assert task.classes == ("heron", "stork", "crane")
    assert "1 of the 4 classes" in held_of(task).notes[0]
    assert "ibis" in held_of(task).notes[0]


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda x, y: Task.from_arrays(x, y[:-1]), "24 images and 23 labels"),
        (lambda x, y: Task.from_arrays(x.reshape(COUNT, -1), y), r"flat rows; give each image its shape: images.reshape\(24, H, W\)"),
        (lambda x, y: Task.from_arrays(x[..., :2], y), r"of shape \(24, 8, 8, 2\): expected .*1, 3 or 4 channels"),
        (lambda x, y: Task.from_arrays(x[:0], y[:0]), "no images"),
        (lambda x, y: Task.from_arrays(x[:, :0], y), r"of shape \(24, 0, 8, 3\): images without pixels"),
        (lambda x, y: Task.from_arrays(torch.from_numpy(x[:, :, :0]), y), r"of shape \(24, 8, 0, 3\): images without pixels"),
        (lambda x, y: Task.from_arrays([x[0, :0], *x[1:]], y), r"image 0 of shape \(0, 8, 3\): an image without pixels"),
        (lambda x, y: Task.from_arrays([], []), "no images"),
        (lambda x, y: Task.from_arrays(x / 127.5 - 1, y), "values from -1 to 1: .*leave out the normalization"),
        (lambda x, y: Task.from_arrays(x / 16, y), "neither 0..1 nor 0..255; scale them"),
        (lambda x, y: Task.from_arrays(x.astype(int) * 16, y), "do not fit 0..255"),
        (lambda x, y: Task.from_arrays(x.astype(int) % 2, y), "nearly black"),
        (lambda x, y: Task.from_arrays(np.where(x == x[0, 0, 0, 0], np.nan, x / 255), y), "not finite"),
        (lambda x, y: Task.from_arrays(x.astype(complex), y), "images of type complex128"),
        (lambda x, y: Task.from_arrays([*x[:-1], None], y), "image 23 is missing"),
        (lambda x, y: Task.from_arrays([*x[:-1], "no/such.png"], y), "no/such.png"),
        (
            lambda x, y: Task.from_arrays([*[Image.fromarray(one) for one in x[:-1]], b"no image"], y),
            "1 of 24 images cannot be used: image 23",
        ),
        (lambda x, y: Task.from_arrays([*(x[:-1] / 255), x[0] * 1.0], y), "values from 0 to 2.., where those before are of 0..1"),
        (lambda x, y: Task.from_arrays("photos", y), "expected several images in an array or a list, not a single str"),
        (lambda x, y: Task.from_arrays(Image.fromarray(x[0]), y), "not a single Image"),
        (lambda x, y: Task.from_arrays({"a": x}, y), "not a single dict"),
        (lambda x, y: Task.from_arrays(7, y), "an? int holds no images"),
        (lambda x, y: Task.from_arrays(x, np.eye(3)[y]), r"give class numbers: labels.argmax\(1\)"),
        (lambda x, y: Task.from_arrays(x, y + 0.5), "label 0 = 0.5 is no class"),
        (lambda x, y: Task.from_arrays(x, [*y[:-1], None]), "label 23 is missing"),
        (lambda x, y: Task.from_arrays(x, [*y[:-1], "cat"]), "labels of several kinds"),
        (lambda x, y: Task.from_arrays(x, y - 1), "label -1, below 0"),
        (lambda x, y: Task.from_arrays(x, y * 0), "all images are of one class, '0'; a task needs at least 2"),
        (lambda x, y: Task.from_arrays(x, y + 1, classes=list("abc")), r"has label 3, outside 0..2"),
        (lambda x, y: Task.from_arrays(x, list("abd") * 8, classes=list("abc")), "'d', which is not one of the classes a, b, c"),
        (lambda x, y: Task.from_arrays(x, y, classes="abc"), "classes = 'abc'"),
        (lambda x, y: Task.from_arrays(x, y, classes=["a", "a", "b"]), "'a' is named twice"),
        (lambda x, y: Task.from_arrays(x, y, classes=["a", "", "b"]), "name 1 is empty"),
        (lambda x, y: Task.from_arrays(x, y, name="a\nb"), "cannot be printed"),
        (lambda x, y: Task.from_arrays(x, y, size=2), "size = 2: expected an integer >= 4 and <= 1024"),
        (lambda x, y: Task.from_arrays(x, y, test=x), "expected a pair, test="),
        (lambda x, y: Task.from_arrays(x, y, test=(x, y.astype(str))), "labels in different forms"),
        (lambda x, y: Task.from_arrays(x, None), "a NoneType where labels are expected"),
        (lambda x, y: Task.from_arrays(DataLoader([]), y), r"from_dataset\(loader.dataset\)"),
        (lambda x, y: Task.from_dataset(x), r"Task.from_arrays\(images, labels\)"),
        (lambda x, y: Task.from_dataset((x, y)), r"Task.from_arrays\(images, labels\)"),
        (lambda x, y: Task.from_dataset(DataLoader(list(zip(x, y, strict=True)), batch_size=4)), "give its data set: loader.dataset"),
        (lambda x, y: Task.from_dataset("cifar10"), "a name, not a data set"),
        (lambda x, y: Task.from_dataset(7), "an? int is no data set"),
        (lambda x, y: Task.from_dataset(list(x)), "item 0 is an? ndarray: expected a pair"),
        (lambda x, y: Task.from_dataset([(one, 0, 1) for one in x]), "item 0 is a tuple of 3"),
        (lambda x, y: Task.from_dataset([{"photo": one, "label": 1} for one in x]), "image='COLUMN'; its columns: photo, label"),
        (lambda x, y: Task.from_dataset({"a": [], "b": []}), r"give one of them: dataset\['NAME'\]"),
        (lambda x, y: Task.from_dataset(Failing(x, y)), "item 5 cannot be read: ZeroDivisionError"),
        (lambda x, y: Task.from_dataset(Random(x, y)), "item 0 is another image when it is read again"),
        (lambda x, y: Task.from_dataset(zip(x, iter(y[:0]), strict=True)), "item 0 cannot be read: ValueError"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(make: Callable[[np.ndarray, np.ndarray], Task], line: str):
    with pytest.raises(LifelongError, match=line) as caught:
        make(pixels(), LABELS)
    assert "\n" not in str(caught.value)


class Pairs:
    """A data set as torch's are, with classes as torchvision's have them."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: list[str] | None = None) -> None:
        self.images, self.labels = images, labels
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.fromarray(self.images[index]), int(self.labels[index])


class Failing(Pairs):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return (super().__getitem__(index)[0], 1 // (index - 5))


class Random(Pairs):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return torch.rand(3, 8, 8), int(self.labels[index])


def fingerprint(task: Task, name: str = "birds") -> str:
    return lifelong.open_stream([task], 3).fingerprint()


def test_data_sets_have_the_fingerprint_of_the_arrays():
    images, classes = pixels(), ["heron", "stork", "crane"]
    wanted = fingerprint(Task.from_arrays(images, LABELS, classes=classes, name="birds"))
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    half = Pairs(images[:10], LABELS[:10], classes), Pairs(images[10:], LABELS[10:], classes)
    doubled = Pairs(np.repeat(images, 2, axis=0), np.repeat(LABELS, 2), classes)

    def endless() -> Iterator[tuple[np.ndarray, int]]:
        yield from zip(images, LABELS.tolist(), strict=True)

    for dataset, named in (
        (Pairs(images, LABELS, classes), None),
        (Subset(doubled, range(0, 2 * COUNT, 2)), None),  # ty: ignore[invalid-argument-type]
        (ConcatDataset(half), None),  # ty: ignore[invalid-argument-type]
        (TensorDataset(scaled, torch.from_numpy(LABELS)), classes),
        ([{"image": image, "label": label} for image, label in zip(images, LABELS, strict=True)], classes),
        ([{"img": image, "labels": classes[label]} for image, label in zip(images, LABELS, strict=True)], classes),
        (endless(), classes),
    ):
        assert fingerprint(Task.from_dataset(dataset, name="birds", classes=named)) == wanted


def test_hugging_face_data_sets_have_the_fingerprint_of_the_arrays():
    datasets = pytest.importorskip("datasets")
    images, classes = pixels(), ["heron", "stork", "crane"]
    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=classes), "other": datasets.Value("int64")})

    def made(rows: slice) -> Any:
        pictures = [Image.fromarray(image) for image in images[rows]]
        columns = {"photo": pictures, "kind": LABELS[rows].tolist(), "other": LABELS[rows].tolist()}
        return datasets.Dataset.from_dict(columns, features=features)

    wanted = fingerprint(Task.from_arrays(images, LABELS, classes=classes, name="birds"))
    whole = made(slice(None))
    for dataset in (whole, whole.with_format("numpy"), whole.with_format("torch"), whole.to_iterable_dataset()):
        assert fingerprint(Task.from_dataset(dataset, name="birds")) == wanted
    named = Task.from_dataset(whole.rename_columns({"photo": "a", "kind": "b"}), image="a", label="b", name="birds")
    assert fingerprint(named) == wanted
    parts = datasets.DatasetDict(train=made(slice(0, 12)), validation=made(slice(12, 18)), test=made(slice(18, 24)))
    given = {"valid": (images[12:18], LABELS[12:18]), "test": (images[18:], LABELS[18:])}
    divided = Task.from_arrays(images[:12], LABELS[:12], classes=classes, name="birds", **given)
    assert fingerprint(Task.from_dataset(parts, name="birds")) == fingerprint(divided)
    with pytest.raises(LifelongError, match="no column 'size' for the images; its columns: photo, kind, other"):
        Task.from_dataset(whole, image="size")
    with pytest.raises(LifelongError, match="test is given, and the data set has a test split"):
        Task.from_dataset(parts, test=whole)


def test_a_stream_holds_out_what_was_not_given():
    images, labels = pixels(count=60), np.arange(60) % 3
    task = Task.from_arrays(images, labels, name="birds")
    stream = lifelong.open_stream([task])
    counts = [len(getattr(stream[0], split)) for split in SPLITS]
    assert counts == [42, 6, 12]  # of 20 images a class a fifth for tests, of the other 16 a tenth for validation
    seen = torch.cat([getattr(stream[0], split).images for split in SPLITS]).flatten(1)
    assert len(seen.unique(dim=0)) == 60
    with pytest.raises(LifelongError, match="was given no validation and no test images: a stream holds them out"):
        _ = task.train


def test_given_splits_can_be_used_at_once_and_stay_what_they_are():
    parts = {split: (pixels(seed=number), LABELS) for number, split in enumerate(("valid", "test"), 1)}
    task = Task.from_arrays(pixels(), LABELS, name="birds", **parts)
    stream = lifelong.open_stream([task])
    for number, split in enumerate(SPLITS):
        wanted = torch.from_numpy(pixels(seed=number)).permute(0, 3, 1, 2)
        assert torch.equal(getattr(task, split).images, wanted)
        drawn = getattr(stream[0], split)
        order = [int((wanted == image).flatten(1).all(dim=1).nonzero()) for image in drawn.images]
        assert sorted(order) == list(range(COUNT))
        assert drawn.labels.tolist() == [LABELS[place] for place in order]


def test_how_images_are_prepared():
    normal, vary = Normalization((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)), Augmentation(crop=1, brightness=0.1)
    for options, augmentation in (
        ({}, Augmentation(1, False)),
        ({"flip": True}, Augmentation(1, True)),
        ({"augment": False}, Augmentation()),
        ({"augment": vary}, vary),
    ):
        task = Task.from_arrays(pixels(), LABELS, normalization=normal, **options)
        stream = lifelong.open_stream([task])
        assert task.augmentation == stream[0].augmentation == augmentation
        assert stream[0].normalization == normal


def test_the_checks_of_files_are_those_of_objects():
    """A picture under two labels, one in train and test, flat ones, few of a class."""
    images, labels = pixels(), LABELS.copy()
    images[3] = images[0]  # the same picture, of the same class
    images[4] = images[0]  # and of another
    images[7] = 9
    task = Task.from_arrays(images, labels, name="birds", test=(pixels(seed=1), LABELS), valid=(pixels(seed=2), LABELS))
    lines = lifelong.api.describe_stream([task])["check"]
    assert any("more than one label, for example image 3 of train as '0' and image 4 of train as '1'" in line for line in lines)
    assert any("1 of 72 images of 'birds' is of one colour: image 7 of train" in line for line in lines)
    assert any("fewer than 10 images to learn from" in line for line in lines)
    leaking = pixels(seed=1)
    leaking[5] = images[1]
    task = Task.from_arrays(images, labels, name="birds", test=(leaking, LABELS), valid=(pixels(seed=2), LABELS))
    stream = lifelong.open_stream([task])
    assert len(stream[0].train) == COUNT - 1
    assert any("1 training image" in note for note in stream.describe()[0].notes)


def test_a_lazy_stream_is_kept_as_it_is():
    """Nothing of it is drawn again."""
    digits = lifelong.open_stream("digits?tasks=2", 3)
    copy = lifelong.open_stream(digits, 0)
    assert copy.name == digits.name
    for one, other in zip(digits, copy, strict=True):
        assert (one.name, one.classes, one.augmentation, one.normalization) == (
            other.name,
            other.classes,
            other.augmentation,
            other.normalization,
        )
        for split in SPLITS:
            assert torch.equal(getattr(one, split).images, getattr(other, split).images)
            assert torch.equal(getattr(one, split).labels, getattr(other, split).labels)


def test_images_in_another_size_are_resized_as_those_of_files(tmp_path):
    for number, (image, label) in enumerate(zip(pixels(), LABELS, strict=True)):
        (tmp_path / "birds" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "birds" / str(label) / f"{number}.png")
    files = lifelong.open_stream(f"folder:{tmp_path}?size=8")
    order = np.argsort(LABELS, kind="stable")
    objects = lifelong.open_stream([Task.from_arrays(pixels()[order], LABELS[order], name="birds")])
    assert torch.equal(objects[0].train.images, files[0].train.images)
    assert torch.equal(objects.test_at(0, 12).images, files.test_at(0, 12).images)


def test_damaged_images_in_the_cache_are_kept_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path))
    task = Task.from_arrays(pixels(), LABELS, name="birds")
    stream = lifelong.open_stream([task])
    wanted = stream[0].train.images
    (file,) = (tmp_path / "images").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-2000] ^= 1
    file.write_bytes(content)
    with pytest.raises(LifelongError, match="'birds' was given from Python, and its images are not, or not whole, in the cache"):
        _ = torch.cat([getattr(stream[0], split).images for split in SPLITS])
    assert torch.equal(lifelong.open_stream([task])[0].train.images, wanted)
