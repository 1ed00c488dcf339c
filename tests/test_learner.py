"""A run put to use: what it answers, and what it refuses."""

import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, features

import lifelong
from lifelong.cli import main
from lifelong.data import given as reading
from lifelong.errors import LifelongError
from lifelong.experiment.saved import open_run
from lifelong.learner import Learner
from lifelong.methods.finetune import Finetune
from lifelong.prediction import Prediction
from lifelong.relatedness.extractor import open_extractor
from tests.learned import small_run
from tests.parquet_files import png
from tests.resaved import change_state


@pytest.fixture(scope="module")
def par(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("par"))


@pytest.fixture(scope="module")
def finetune(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("finetune"), "finetune")


def digits(run: Path, task: int = 0) -> torch.Tensor:
    return lifelong.open_stream(run.parent / "three.toml")[task].test.images


@pytest.fixture
def folder(par: Path, tmp_path: Path) -> Path:
    """The first four test images as files, one of them in a folder of its own."""
    for index, image in enumerate(digits(par)[:4]):
        place = tmp_path / "images" / ("inner" if index == 3 else ".")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{index}.png")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def test_what_was_learned(par):
    learner = Learner.load(par)
    assert learner.tasks == {"a": ("0", "1", "2"), "b": ("7", "8", "9"), "a-again": ("0", "1", "2")}
    assert learner.image_size == 8


def test_of_a_named_task(par):
    learner, images = Learner.load(par), digits(par)
    wanted = learner.logits(images, "a").softmax(dim=1)
    for answer, shares in zip(learner.predict(images, "a"), wanted, strict=True):
        assert answer.task == "a"
        assert answer.tasks is answer.task_probability is answer.strange is None
        assert answer.label == ("0", "1", "2")[int(shares.argmax())]
        assert answer.probability == pytest.approx(float(shares.max()))
        assert [answer.classes[name] for name in "012"] == pytest.approx(shares.tolist())
        assert list(answer.classes.values()) == sorted(answer.classes.values(), reverse=True)


def test_two_classes_of_one_name_are_two_answers(finetune, tmp_path):
    """A run of an earlier version may hold them."""
    run = shutil.copytree(finetune, tmp_path / "run")
    change_state(run, lambda state: state["entries"][0].update(classes=["crane", "dog", "crane"]))
    learner, images = Learner.load(run), digits(finetune)
    assert learner.tasks["a"] == ("crane", "dog", "crane (2)")
    shares = learner.logits(images, "a").softmax(dim=1)
    for answer, each in zip(learner.predict(images, "a"), shares, strict=True):
        assert [answer.classes[name] for name in learner.tasks["a"]] == pytest.approx(each.tolist(), abs=1e-6)
        assert answer.probability == pytest.approx(float(each.max()))


def test_the_task_is_inferred(par):
    """Digits from 7 up are told from those up to 2; the two tasks of the same classes cannot be told apart, and need not be."""
    learner = Learner.load(par)
    for task, names in enumerate([("a", "a-again"), ("b",)]):
        found = learner.predict(digits(par, task))
        right = [answer.task in names for answer in found]
        assert sum(right) >= 0.8 * len(right)
        for answer in found:
            assert answer.tasks is not None
            assert sum(answer.tasks.values()) == pytest.approx(1)
            assert answer.task == next(iter(answer.tasks))
            assert answer.task_probability == max(answer.tasks.values())


def test_inferred_tasks_answer_as_if_named(par):
    learner, images = Learner.load(par), digits(par, 1)
    for index, answer in enumerate(learner.predict(images)):
        (named,) = learner.predict(images[index], answer.task)
        assert named.label == answer.label
        assert named.classes == pytest.approx(answer.classes, abs=1e-5)


def test_small_batches_answer_as_the_method_does_for_all_at_once(par, monkeypatch):
    monkeypatch.setattr("lifelong.predictor.SMALL_BATCH_PIXELS", 7 * 8 * 8)
    learner = Learner.load(par)
    images = torch.cat([digits(par, task) for task in range(3)])
    saved = open_run(par)
    saved.method.attach_extractor(lambda name, feature_input: open_extractor(name, feature_input=feature_input))
    tasks, strange = saved.method.task_probabilities(images), saved.method.strangeness(images) > 1
    logits = [saved.method.logits(images, task).softmax(dim=1) for task in range(3)]
    names = list(learner.tasks)
    for index, answer in enumerate(learner.predict(images)):
        assert answer.tasks == pytest.approx(dict(zip(names, tasks[index].tolist(), strict=True)), abs=1e-6)
        assert answer.strange == strange[index]
        wanted = logits[names.index(answer.task)][index].tolist()
        assert answer.classes == pytest.approx(dict(zip(learner.tasks[answer.task], wanted, strict=True)), abs=1e-6)


def test_a_method_that_looks_at_all_images_together_is_shown_them_together(finetune, monkeypatch):
    monkeypatch.setattr("lifelong.predictor.SMALL_BATCH_PIXELS", 7 * 8 * 8)
    learner, images = Learner.load(finetune), digits(finetune)
    shown, logits = [], Finetune.logits
    monkeypatch.setattr(Finetune, "logits", lambda self, images, task: shown.append(len(images)) or logits(self, images, task))
    learner.predict(images, "a")
    assert shown == [7, 7, 7, 7, 2]
    shown.clear()
    monkeypatch.setattr(Finetune, "batch_dependent", True)
    learner.predict(images, "a")
    assert shown == [30]


def test_an_answer_leaves_the_program_as_it_was(par):
    learner, images = Learner.load(par), digits(par)[:2]
    threads, small = torch.get_num_threads(), torch.full((64,), 1e-30)
    torch.set_flush_denormal(False)  # the run that was learned here has set it
    learner.predict(images)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert (small * 1e-10 > 0).all(), "numbers below the smallest normal float are there"
    assert not learner.logits(images, "a").is_inference(), "logits can take part in a gradient"


def test_what_is_unlike_anything_learned(par):
    learner = Learner.load(par)
    noise = torch.randint(0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert all(answer.strange for answer in learner.predict(noise))
    known = [answer.strange for answer in learner.predict(digits(par))]
    assert sum(known) <= 0.2 * len(known)


def check_alike(found: list[Prediction], wanted: list[Prediction]) -> None:
    """See that answers are the same but for rounding, which depends on how many images are answered at once."""
    for one, other in zip(found, wanted, strict=True):
        assert (one.task, one.label, one.strange) == (other.task, other.label, other.strange)
        assert one.classes == pytest.approx(other.classes, abs=1e-5)
        assert one.tasks == pytest.approx(other.tasks, abs=1e-5)


def test_images_of_every_kind(par, folder):
    learner, images = Learner.load(par), digits(par)[:4]
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    wanted = learner.predict(images)
    with_a_grey_one = [arrays[0][:, :, 0], *arrays[1:]]
    for four in (arrays, [Image.fromarray(array) for array in arrays], with_a_grey_one, folder):
        assert torch.equal(learner.read(four), images)
        assert learner.predict(four) == wanted
    check_alike(learner.predict([str(folder / "0.png"), folder / "1.png"]), wanted[:2])
    (alone,) = learner.predict(images[0])
    check_alike([alone], wanted[:1])
    coloured = Image.fromarray(arrays[0])
    for mode in ("CMYK", "RGBX"):
        assert learner.predict(coloured.convert(mode)) == [alone]
    assert learner.predict([]) == learner.predict(images[:0]) == []
    for none in (np.stack(arrays)[:0], images[:0] / 255, np.stack(arrays)[:0, ..., 0], np.array([])):
        assert learner.predict(none) == []
        assert learner.read(none).shape == (0, 3, 8, 8)
    (large,) = learner.predict(Image.fromarray(arrays[0]).resize((80, 80), Image.Resampling.NEAREST))
    assert large.label == wanted[0].label


def test_images_as_programs_have_them(par, folder, tmp_path):
    """All of these are the same four images."""
    learner, images = Learner.load(par), digits(par)[:4]
    batch = images.permute(0, 2, 3, 1).numpy()
    encoded = [png(array) for array in batch]
    opened = [(tmp_path / f"{number}.bin") for number in range(4)]
    for file, content in zip(opened, encoded, strict=True):
        file.write_bytes(content)
    rgba = np.concatenate([batch, np.full((4, 8, 8, 1), 255, np.uint8)], axis=3)
    written = [io.BytesIO(content) for content in encoded]
    for one in written:
        one.seek(0, io.SEEK_END)  # as a program leaves it that has just written the image
    wanted = learner.predict(images)
    files = ExitStack()
    for four in (
        batch,
        list(batch),
        np.asfortranarray(batch),
        rgba,
        batch[..., :1],
        encoded,
        written,
        map(bytearray, encoded),
        (files.enter_context(file.open("rb")) for file in opened),
        list(images),
        folder.parent / "images",
        sorted(folder.rglob("*.png")),
        map(Image.fromarray, batch),
    ):
        assert learner.predict(four) == wanted
    files.close()
    assert [answer.image for answer in learner.predict(folder)] == [
        str(folder / name) for name in ("0.png", "1.png", "2.png", "inner/3.png")
    ]
    assert [answer.image for answer in learner.predict(batch)] == [f"image {number}" for number in range(4)]
    for four in (encoded, list(batch), batch / 255, images, images / 255, images[:, :1]):
        assert [answer.image for answer in learner.predict(four)] == [f"image {number}" for number in range(4)]
    assert {answer.image for one in (images[0], batch[0], encoded[0]) for answer in learner.predict(one)} == {"the image"}
    masks, pixels = np.zeros(batch.shape, bool), torch.zeros_like(images)
    masks[1:], pixels[1:] = True, 255
    assert learner.predict(masks) == learner.predict(pixels)


@pytest.mark.parametrize(
    ("task", "steps"),
    [
        ("a", [1.5, 3.0, 3.0, 4.5, 6.0, 6.0, 6.5, 7.0, 7.0]),
        (None, [1.5, 2.25, 3.0, 3.0, 4.5, 5.25, 6.0, 6.0, 6.5, 6.75, 7.0, 7.0]),
    ],
)
def test_who_waits_is_told_how_far_it_is(task, steps, par, monkeypatch):
    """Seven images, three at a time: half of the work is to read them; the rest is one pass where the task is named, else two."""
    learner = Learner.load(par)
    given = reading.given_images(list(digits(par)[[0] * 7].permute(0, 2, 3, 1).numpy()))
    monkeypatch.setattr("lifelong.predictor.EVALUATION_BATCH", 3)
    heard: list[float] = []
    told = list(learner.predict_each(given, task, tell=heard.append))
    assert heard == steps
    assert told == list(learner.predict_each(given, task))


def test_the_command_says_how_far_it_is_where_no_terminal_is(par, folder, monkeypatch, capsys):
    monkeypatch.setattr("lifelong.predictor.EVALUATION_BATCH", 2)
    monkeypatch.setattr("lifelong.experiment.counting.LINE_EVERY", 0.0)
    assert main(["predict", str(par), str(folder), "--json"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 4
    lines = [line.partition(",")[0] for line in said.err.splitlines() if " left" in line]
    assert lines[0] == "1 of 4 images"
    assert lines[-1] == "3 of 4 images"


def test_a_broken_file_of_a_folder_does_not_end_it(par, folder, caplog, capsys):
    learner, images = Learner.load(par), digits(par)[:4]
    good = folder / "0.png"
    (folder / "._1.png").write_bytes(b"Mac OS X")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "hidden.png").write_bytes(good.read_bytes())
    (folder / "4.png").write_bytes(good.read_bytes()[:50])
    with Image.open(good) as picture:
        picture.save(folder / "5.jfif", "JPEG")
        picture.save(folder / "6.avif", "AVIF" if features.check("avif") else "PNG")
    with pytest.MonkeyPatch.context() as patch, caplog.at_level("WARNING", "lifelong"):
        patch.setattr("lifelong.predictor.EVALUATION_BATCH", 2)  # answers do not depend on where a batch ends
        found = learner.predict(folder)
    assert [Path(answer.image).name for answer in found] == ["0.png", "1.png", "2.png", "5.jfif", "6.avif", "3.png"]
    check_alike([*found[:3], found[5]], learner.predict(images))
    assert "1 of 7 images cannot be used: " in caplog.text
    assert "4.png (truncated)" in caplog.text
    assert main(["predict", str(par), str(folder), "--json"]) == 0
    said = capsys.readouterr()
    rows = {Path(row["image"]).name: row for row in json.loads(said.out)}
    assert list(rows) == ["0.png", "1.png", "2.png", "4.png", "5.jfif", "6.avif", "3.png"]
    assert (rows["4.png"]["error"], rows["4.png"]["label"]) == ("truncated", None)
    assert rows["0.png"]["error"] is None
    assert said.err.endswith(f"{folder}: Passed over as no images: 1 .txt.\n")
    assert main(["predict", str(par), str(folder)]) == 0
    assert "unusable (truncated)" in capsys.readouterr().out
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff7.png")).write_bytes(b"x")  # a name that is not text
    assert main(["predict", str(par), str(folder)]) == 0
    assert "\N{REPLACEMENT CHARACTER}" in capsys.readouterr().out
    # A file that was asked for by name is missed, unless it may be.
    asked = [str(folder / "4.png"), str(good), str(folder / "none.png")]
    assert main(["predict", str(par), *asked]) == 2
    line = capsys.readouterr().err
    assert "2 of 3 images cannot be used" in line
    assert "4.png (truncated)" in line
    assert "none.png (no such file or directory)" in line
    assert "--skip-broken" in line
    assert [answer.image for answer in learner.predict(asked, skip_broken=True)] == [str(good)]
    with pytest.raises(LifelongError, match=r"1 of 1 images cannot be used: .*4.png \(truncated\); none is left"):
        learner.predict(folder / "4.png", skip_broken=True)


def test_of_many_photographs_some_are_held_at_a_time(par, tmp_path, monkeypatch):
    noise = png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(noise)
    shown = []
    decode = reading.decode_squares
    monkeypatch.setattr(reading, "decode_squares", lambda pictures, size: shown.append(len(pictures)) or decode(pictures, size))
    monkeypatch.setattr(reading, "_BYTES", 4 * len(noise))
    monkeypatch.setattr("lifelong.predictor.EVALUATION_BATCH", 10)
    assert len(Learner.load(par).predict(tmp_path)) == 40
    assert shown == [4, 4, 2] * 4


def test_opened_pictures_are_not_encoded_again(par, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *args, **more: pytest.fail("encoded"))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8))
    pixels = Learner.load(par).read([picture, np.asarray(picture)])
    assert torch.equal(pixels[0], pixels[1])


def test_a_picture_stands_upright_as_its_file_does(par, tmp_path):
    learner = Learner.load(par)
    sideways = Image.fromarray(digits(par)[0].permute(1, 2, 0).numpy()).transpose(Image.Transpose.ROTATE_90)
    mark = Image.Exif()
    mark[0x0112] = 6  # turn a quarter clockwise to see it upright
    sideways.save(tmp_path / "sideways.png", exif=mark)
    with Image.open(tmp_path / "sideways.png") as picture:
        pixels = learner.read(picture)
    assert torch.equal(pixels, learner.read(tmp_path / "sideways.png"))
    assert torch.equal(pixels, digits(par)[:1])


def test_a_method_that_cannot_tell_tasks_apart(finetune):
    learner, images = Learner.load(finetune), digits(finetune)
    found = learner.predict(images)
    assert found == learner.predict(images, infer="confidence")
    assert all(answer.strange is None and answer.tasks is not None for answer in found)
    for image, answer in zip(images, found, strict=True):
        classes = dict(zip(learner.tasks[answer.task], learner.logits(image[None], answer.task).softmax(dim=1)[0].tolist(), strict=True))
        assert answer.classes == pytest.approx(classes, abs=1e-6)
    with pytest.raises(LifelongError, match="'finetune' cannot infer an image's task"):
        learner.predict(images, infer="method")


def test_what_is_refused(par, tmp_path):
    learner = Learner.load(par)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    for given, task, line in [
        (digits(par), "aa", "has learned no task 'aa'; did you mean 'a'"),
        (tmp_path / "none.png", None, r"none.png \(no such file or directory\)"),
        (tmp_path / "broken.png", None, r"broken.png \(no image, or of an unknown format\)"),
        (tmp_path / "empty", None, "no image in this folder"),
        (torch.zeros(1, 3, 9, 8, dtype=torch.uint8), None, r"takes uint8 of shape \(N, 3, 8, 8\)"),
        (torch.full((1, 3, 8, 8), -0.5), None, "values from -0.5 to -0.5: .*leave out the normalization"),
        (np.full((8, 8, 3), 16.0), None, r"values from 16 to 16 are neither 0..1 nor 0..255; scale them to floats of 0..1: images / 16"),
        (np.full((8, 8, 3), np.nan), None, "not finite"),
        (np.zeros((8, 8), dtype=complex), None, r"an array of shape \(8, 8\) and type complex128"),
        (np.zeros((2, 0, 8, 3), dtype=np.uint8), None, r"images of shape \(2, 0, 8, 3\): images without pixels"),
        ([np.zeros((0, 8), dtype=np.uint8)], None, r"image 0 of shape \(0, 8\): an image without pixels"),
        ([np.zeros((5, 8, 8), dtype=np.uint8)], None, r"image 0 of shape \(5, 8, 8\): expected \(H, W\)"),
        (Image.new("F", (8, 8)), None, "floating-point pixels"),
        (7, None, "an int is not an image"),
        ([tmp_path / "broken.png", None], None, "image 1: a NoneType is not an image"),
        ({"image": 3}, None, "a dict is not an image"),
        (b"", None, r"the image \(empty\)"),
        (io.StringIO("text"), None, "open it in binary mode"),
        (SimpleNamespace(read=lambda size: b""), None, "cannot be read"),
    ]:
        with pytest.raises(LifelongError, match=line) as caught:
            learner.predict(given, task)
        assert "\n" not in str(caught.value)
    with pytest.raises(LifelongError, match="holds no run"):
        Learner.load(tmp_path)


def test_a_run_of_another_version(par, tmp_path):
    import shutil

    copy = Path(shutil.copytree(par, tmp_path / "old"))
    file = copy / "checkpoint" / "identity.json"
    file.write_text(file.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(LifelongError, match="another version"):
        Learner.load(copy)


def test_the_command(par, folder, capsys):
    assert main(["predict", str(par), str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "probability" in shown
    assert "next" in shown
    assert main(["predict", str(par), str(folder / "0.png"), str(folder / "1.png"), "--task", "a", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in rows] == [str(folder / "0.png"), str(folder / "1.png")]
    assert [row["task"] for row in rows] == ["a", "a"]
    assert main(["predict", str(par)]) == 2
    assert "no images given" in capsys.readouterr().err


def test_arrays_in_every_form_are_the_same_pictures(finetune):
    """Floats, the order of channels, tensors: what learning takes, predicting does, too."""
    learner, images = Learner.load(finetune), digits(finetune)[:6]
    wanted = learner.predict(images, "a")
    rows = images.permute(0, 2, 3, 1).numpy()
    grey = rows[..., 0]  # digits are grey
    floats = images.float() / 255
    for given in (
        *(rows, rows / 255, rows.astype(np.float32), rows.astype(np.int64), images.numpy(), list(rows / 255)),
        *(grey, grey[..., None], grey / 255, floats, floats.half(), list(floats), images[:, :1], images[:, 0]),
    ):
        assert learner.predict(given, "a") == wanted
    for single in (floats[0], grey[0] / 255):  # alone in its batch, so equal to rounding
        (found,) = learner.predict(single, "a")
        assert found.classes == pytest.approx(wanted[0].classes, rel=1e-4)


def test_one_image_or_several_grey_ones(finetune):
    """No image is lost without a word: what may be one image with channels, or several grey ones, is refused with the way out."""
    learner, images = Learner.load(finetune), digits(finetune)[:8]
    grey = images[:, 0].contiguous()
    wanted = learner.predict(images, "a")
    for some in (grey, grey.numpy(), grey / 255, grey.numpy() / 255):
        for count in (1, 2, 5, 8):
            assert len(learner.predict(some[:count])) == count
        for several in (some[:3][..., None], some[:4][..., None], some[:4][:, None], list(some[:3])):
            assert [answer.label for answer in learner.predict(several, "a")] == [answer.label for answer in wanted[: len(several)]]
    for either in (grey.numpy()[:3], grey.numpy()[:4] / 255, grey[:4], grey[:4] / 255, grey[:, :4, :4], grey.numpy()[:, :4, :4]):
        with pytest.raises(
            LifelongError, match=r"either \d grey images or one image with [34] channels; give images\[..., None\] for"
        ) as caught:
            learner.predict(either)
        assert "\n" not in str(caught.value)
    assert len(learner.predict(np.zeros((3, 8, 8), np.uint8)[None])) == 1
    for tensor in (images[0], images[0] / 255):  # documented: a tensor has its channels first
        assert learner.predict(tensor, "a")[0].label == wanted[0].label


@pytest.mark.filterwarnings("ignore:Sparse")
def test_tensors_without_values(finetune):
    learner, images = Learner.load(finetune), digits(finetune)[:2]
    task = lifelong.Task.from_arrays
    for given, line in ((images.to_sparse(), "a sparse tensor; give tensor.to_dense"), (images.to("meta"), "which holds no values")):
        calls: list[Callable[[torch.Tensor], object]] = [
            *(learner.predict, lambda some: learner.logits(some, "a"), learner.read, lambda some: learner.predict([some[0]])),
            *(lambda some: task(some, [0, 1]), lambda some: task([some[0], some[1]], [0, 1])),
        ]
        for call in calls:
            with pytest.raises(LifelongError, match=line):
                call(given)
            if call is not calls[1]:
                with pytest.raises(LifelongError, match=line):
                    call(given.float())


def test_a_dark_frame_is_an_image(finetune):
    """Numbers of 0 and 1 are refused to be learned, as they are likelier truth values, but do not stop a program that predicts."""
    learner = Learner.load(finetune)
    dark = np.zeros((8, 8, 3), np.uint8)
    wanted = learner.predict(dark, "a")
    for frame in (dark.astype(int), dark[..., 0].astype(np.uint16), [dark.astype(int)], torch.from_numpy(dark).permute(2, 0, 1).int()):
        assert learner.predict(frame, "a") == wanted
