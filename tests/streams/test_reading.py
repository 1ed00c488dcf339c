from pathlib import Path

import pytest

from lifelong.data.task import IMAGENET, NO_AUGMENTATION, Augmentation, Normalization
from lifelong.errors import LifelongError
from lifelong.streams.reading import read_stream
from lifelong.streams.spec import SameAs, StreamSpec, TaskSpec
from lifelong.streams.transforms import Transform

ISSUE = """
name = "small-minus"
image_size = 32
[[task]]
name = "cifar10-a"
source = "cifar10"            # a source's name
classes = ["cat", "dog", 3]   # names or ids in order
train_per_class = 400
valid_per_class = 100
test_per_class = 200
transform = { background = "red" }
"""


def read(folder: Path, text: str) -> StreamSpec:
    file = folder / "my.toml"
    file.write_text(text)
    return read_stream(file)


def test_a_byte_order_mark_is_left_out(tmp_path):
    """Some editors of Windows write one."""
    assert read(tmp_path, f"\ufeff{ISSUE.strip()}") == read(tmp_path, ISSUE)


def test_the_form_of_the_issue(tmp_path):
    spec = read(tmp_path, ISSUE)
    task = TaskSpec(
        name="cifar10-a",
        source="cifar10",
        classes=("cat", "dog", 3),
        train_per_class=400,
        valid_per_class=100,
        test_per_class=200,
        transform=Transform(background=(1.0, 0.0, 0.0)),
    )
    assert spec == StreamSpec("small-minus", (task,), tmp_path.resolve())


def test_every_key(tmp_path):
    spec = read(
        tmp_path,
        """
        image_size = 16
        normalize = "imagenet"
        augment = false
        [[task]]
        name = "a"
        source = "mnist"
        classes = 3
        valid_fraction = 0.25
        overlap = true
        [[task]]
        name = "b"
        source = "mnist"
        classes = { same_as = "a" }
        image_size = 8
        normalize = { mean = [0, 0.5, 1], std = [1, 1, 0.25] }
        augment = { crop = 4, flip = true, brightness = 0.25 }
        transform = { invert = true, background = [0, 0.5, 1], rotate = -30, shift_labels = 2 }
        [[task]]
        name = "c"
        source = "mnist"
        normalize = "task"
        augment = true
        """,
    )
    assert spec.name == "my"
    first, second, third = spec.tasks
    assert (first.classes, first.valid_fraction, first.overlap) == (3, 0.25, True)
    assert (first.image_size, first.normalization, first.augmentation) == (16, IMAGENET, NO_AUGMENTATION)
    assert second.classes == SameAs("a")
    assert second.normalization == Normalization((0.0, 0.5, 1.0), (1.0, 1.0, 0.25))
    assert second.augmentation == Augmentation(4, True, 0.25)
    assert second.image_size == 8
    assert second.transform == Transform(-30.0, True, (0.0, 0.5, 1.0), 2)
    assert (third.classes, third.normalization, third.augmentation) == (None, None, None)


TASK = '[[task]]\nname = "a"\nsource = "mnist"\n'

BAD = [
    ("name = ", "not valid TOML"),
    ("", "stream 'my' has no tasks"),
    ("task = 3", "task = 3: expected tables: write each task as [[task]]"),
    ("[[tasks]]\nname = 'a'", "unknown key 'tasks'; did you mean 'task'?"),
    ("imagesize = 3\n" + TASK, "unknown key 'imagesize'; did you mean 'image_size'?"),
    ("image_size = 'big'\n" + TASK, 'image_size = "big": expected an integer >= 4 and <= 1024'),
    ("image_size = 2\n" + TASK, "image_size = 2: expected an integer >= 4 and <= 1024"),
    ("name = ' '\n" + TASK, 'name = " ": expected a text that is not empty'),
    ("image_size = 1025\n" + TASK, "image_size = 1025: expected an integer >= 4 and <= 1024"),
    ("name = 3\n" + TASK, "name = 3: expected a text that is not empty"),
    ("[[task]]\nsource = 'mnist'", "task 1, the key 'name' is missing"),
    ("[[task]]\nname = 'a'\nsorce = 'mnist'", "task 'a', the key 'source' is missing; is 'sorce' meant to be it?"),
    (TASK + "train_per_clas = 3", "task 'a', unknown key 'train_per_clas'; did you mean 'train_per_class'?"),
    (TASK + "train_per_class = 'many'", 'train_per_class = "many": expected an integer >= 1'),
    (TASK + "train_per_class = 4.5", "task 'a', train_per_class = 4.5: expected an integer >= 1"),
    (TASK + "train_per_class = true", "task 'a', train_per_class = true: expected an integer >= 1"),
    (TASK + "train_per_class = 0", "task 'a', train_per_class = 0: expected an integer >= 1"),
    (TASK + "valid_per_class = -1", "task 'a', valid_per_class = -1: expected an integer >= 1"),
    (TASK + "valid_fraction = 1", "task 'a', valid_fraction = 1: expected a number > 0 and < 1"),
    (TASK + "valid_fraction = 3", "task 'a', valid_fraction = 3: expected a number > 0 and < 1"),
    (TASK + "valid_fraction = nan", "task 'a', valid_fraction = NaN: expected a number > 0 and < 1"),
    (TASK + "valid_fraction = 0.5\nvalid_per_class = 3", "task 'a': valid_per_class and valid_fraction exclude each other"),
    (TASK + "overlap = 'yes'", 'overlap = "yes": expected true or false'),
    (TASK + "classes = 1", "task 'a', classes = 1: a task needs at least 2 classes"),
    (TASK + "classes = ['x']", "task 'a', classes = ['x']: a task needs at least 2 classes"),
    (TASK + "classes = true", "classes = true: expected a list of names or ids"),
    (TASK + "classes = [true, 'x']", 'classes = [true, "x"]: expected a list of names or ids'),
    (TASK + f"classes = [{', '.join(f'{number}.5' for number in range(100))}]", "...: expected a list of names"),
    (TASK + "classes = ['x', 'x']", "a class is named twice"),
    (TASK + "classes = [1.5, 2]", "task 'a', classes = [1.5, 2]: expected a list of names or ids, a number of classes to draw"),
    (TASK + "classes = 'all'", 'classes = "all": expected a list of names or ids'),
    (TASK + "classes = { same = 'b' }", "task 'a', classes, the key 'same_as' is missing"),
    (TASK + "classes = { same_as = 'b' }", "task 'a', same_as = 'b': no earlier task has this name"),
    (TASK + "classes = { same_as = 'a' }", "task 'a', same_as = 'a': no earlier task has this name"),
    (TASK + TASK, "task 'a': two tasks have this name"),
    (TASK + "transform = 'invert'", 'transform = "invert": expected a table with rotate, invert, background, shift_labels'),
    (TASK + "transform = { inverted = true }", "task 'a', transform, unknown key 'inverted'; did you mean 'invert'?"),
    (
        TASK + "transform = { background = 'gren' }",
        "expected one of 'red', 'green', 'blue', or a list of 3, each a number >= 0 and <= 1; did you mean 'green'?",
    ),
    (TASK + "transform = { background = [1, 2, 3] }", "background = [1, 2, 3]: expected one of"),
    (TASK + "transform = { background = [1, 1] }", "or a list of 3, each a number"),
    (TASK + "transform = { rotate = inf }", "rotate = Infinity: expected a number"),
    (TASK + "transform = { shift_labels = 0.5 }", "shift_labels = 0.5: expected an integer"),
    (TASK + "normalize = 'image-net'", "expected one of 'task', 'imagenet', or a table with mean, std; did you mean 'imagenet'?"),
    (TASK + "normalize = { mean = [0, 0, 0] }", "task 'a', normalize, the key 'std' is missing"),
    (TASK + "normalize = { mean = [0, 0, 0], std = [1, 0, 1] }", "std = [1, 0, 1]: expected a list of 3, each a number >= 1e-06 and <= 10"),
    (TASK + "augment = 'no'", 'augment = "no": expected true or false, or a table with crop, flip, brightness'),
    (TASK + "augment = { crop = 32 }", "task 'a', augment crop = 32: must be smaller than the image size 32"),
    (
        TASK + "normalize = { mean = [0, 0, 11], std = [1, 1, 1] }",
        "mean = [0, 0, 11]: expected a list of 3, each a number >= -10 and <= 10",
    ),
    (TASK + "augment = { crop = -1 }", "task 'a', augment, crop = -1: expected an integer >= 0"),
    (TASK + "augment = 1", "augment = 1: expected true or false, or a table with crop"),
    (TASK + "augment = { brightness = 2 }", "brightness = 2: expected a number >= 0 and <= 1"),
]


@pytest.mark.parametrize(("text", "line"), BAD, ids=range(len(BAD)))
def test_bad_input(tmp_path, text, line):
    with pytest.raises(LifelongError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'my.toml'}: ")
    assert line in message
    assert "\n" not in message


ACCEPTED = [
    ("image_size = 4", "image_size", 4),
    ("image_size = 1024", "image_size", 1024),
    ("train_per_class = 1", "train_per_class", 1),
    ("valid_fraction = 1e-9", "valid_fraction", 1e-9),
    ("classes = [3, 0]", "classes", (3, 0)),
    ("classes = ['', '3', 3]", "classes", ("", "3", 3)),
    ("transform = {}", "transform", Transform()),
    ("transform = { rotate = 1000, shift_labels = -3 }", "transform", Transform(1000.0, shift_labels=-3)),
    ("transform = { background = 'blue' }", "transform", Transform(background=(0.0, 0.0, 1.0))),
    ("augment = {}", "augmentation", NO_AUGMENTATION),
    ("augment = { brightness = 1 }", "augmentation", Augmentation(brightness=1.0)),
    ("normalize = { mean = [-10, 0, 10], std = [1e-6, 1, 10] }", "normalization", Normalization((-10.0, 0.0, 10.0), (1e-6, 1.0, 10.0))),
]


@pytest.mark.parametrize(("line", "name", "value"), ACCEPTED, ids=range(len(ACCEPTED)))
def test_the_ends_of_every_range_are_accepted(tmp_path, line, name, value):
    found = getattr(read(tmp_path, TASK + line).tasks[0], name)
    assert found == value
    assert repr(found) == repr(value)  # a whole number comes back as a float where the stream's checksum has one


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(LifelongError, match=r"no stream file .*gone\.toml"):
        read_stream(tmp_path / "gone.toml")
    with pytest.raises(LifelongError, match="cannot read stream file"):
        read_stream(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LifelongError, match="not valid TOML"):
        read_stream(tmp_path / "binary.toml")
