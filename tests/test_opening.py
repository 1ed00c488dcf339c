"""Pipes, devices, sockets and links under the names of files: a one-line error, at once, wherever untrusted files can contain one."""

import os
import socket
import stat
import tempfile
import threading
from pathlib import Path

import pytest

import lifelong
from lifelong import opening
from lifelong.cli import main
from lifelong.data.cache import Cache
from lifelong.data.files import read_file
from lifelong.data.given import given_images
from lifelong.data.images import decode_images
from lifelong.data.lists import list_csv
from lifelong.data.parquet import ParquetSplit
from lifelong.errors import LifelongError
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.json_files import read_lines
from lifelong.relatedness.weights import read
from lifelong.settings.resolve import resolve
from lifelong.storage import load_tree, write_text
from lifelong.streams.reading import read_stream

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes and devices among the files of this system")


@pytest.fixture(params=["a pipe", "a socket", "a link to a pipe", "a link to a device", "a folder"])
def trap(request, tmp_path) -> Path:
    """What hangs who opens it, or never ends."""
    place = tmp_path / "trap"
    match request.param:
        case "a pipe":
            os.mkfifo(place)
        case "a socket":
            with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as bound:
                bound.bind(f"{short}/s")
                os.link(f"{short}/s", place)
        case "a link to a pipe":
            os.mkfifo(tmp_path / "elsewhere")
            place.symlink_to(tmp_path / "elsewhere")
        case "a link to a device":
            place.symlink_to("/dev/zero")
        case "a folder":
            place.mkdir()
    return place


READERS = {
    "an image": read_file,
    "a list": lambda file: list_csv(file, ("image",), ("label",), {}),
    "parquet": lambda file: ParquetSplit([file], ("image",), ("label",)),
    "a checksum": lambda file: Cache(file.parent / "cache").checksum([file]),
    "a stream": read_stream,
    "settings": lambda file: resolve(None, None, None, None, file, {}, methods={}),
    "a tree": load_tree,
    "lines": read_lines,
    "weights": read,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_trap_is_one_line(trap, reader):
    """In a thread, so that a reader that hangs is a failure, and not a test that hangs."""
    said: list[str] = []

    def look() -> None:
        try:
            READERS[reader](trap)
        except LifelongError as error:
            said.append(str(error))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(60)
    assert said, f"{reader} hangs, or found nothing"
    assert str(trap) in said[0]


@pytest.mark.parametrize("name", ["summary.json", "checkpoint/identity.json", "checkpoint/run.safetensors"])
def test_a_trap_in_a_run_directory(tmp_path, name):
    (tmp_path / "checkpoint").mkdir()
    os.mkfifo(tmp_path / name)
    directory = RunDirectory(tmp_path)
    read = {"summary.json": lambda: read_summary(tmp_path), "checkpoint/identity.json": directory.identity}
    with pytest.raises(LifelongError, match=r"cannot read .*: .*a pipe, not a file"):
        read.get(name, lambda: load_tree(tmp_path / name))()


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "there").write_bytes(b"content")
    (tmp_path / "here").symlink_to(tmp_path / "there")
    assert read_file(tmp_path / "here") == b"content"


def test_what_is_put_there_between_the_looks(tmp_path, monkeypatch):
    """A pipe that takes the place of a file after it was looked at is found when it is open."""
    file = tmp_path / "x.png"
    file.write_bytes(b"content")
    look = os.stat

    def swapped(path: object, **options: object) -> os.stat_result:
        found = look(path, **options)
        file.unlink()
        os.mkfifo(file)
        return found

    monkeypatch.setattr(os, "stat", swapped)
    with pytest.raises(OSError, match="a pipe, not a file"):
        opening.open_regular(file)


def test_a_file_that_says_it_is_empty_and_never_ends(tmp_path, monkeypatch):
    """As some of the kernel's."""
    file = tmp_path / "endless"
    file.write_bytes(b"x" * 5000)
    about = os.stat(file)
    nothing = os.stat_result([about.st_mode, *about[1:6], 0, *about[7:]])
    monkeypatch.setattr(os, "fstat", lambda descriptor: nothing)
    monkeypatch.setattr(opening, "_PIECE", 100)
    assert len(opening.read_bytes(file, 5000)) == 5000
    with pytest.raises(OSError, match="larger than"):
        opening.read_bytes(file, 4999)


@pytest.mark.parametrize("most", [0, 9])
def test_a_file_that_is_too_large(tmp_path, most):
    (tmp_path / "large").write_bytes(b"x" * 10)
    with pytest.raises(OSError, match="larger than 0 MB"):
        opening.read_bytes(tmp_path / "large", most)
    assert opening.read_bytes(tmp_path / "large", 10) == b"x" * 10


def test_a_device_is_not_replaced(tmp_path):
    """A pipe stands for it here: who runs this as root has devices to lose."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LifelongError, match=r"cannot write .*: a pipe, not a file"):
        write_text(tmp_path / "pipe", "text")
    assert stat.S_ISFIFO(os.lstat(tmp_path / "pipe").st_mode)


NAMES = {"long": "x" * 300, "deep": "/" + "/".join(["y" * 200] * 30), "torn": "bad\udcff", "half": "\ud800x", "nul": "a\0b", "empty": ""}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "words",
    [
        ("streams", "{}"),
        ("streams", "folder:{}"),
        ("streams", "csv:{}"),
        ("streams", "parquet:{}"),
        ("compare", "{}/x"),
        ("predict", "{}", "x.png"),
        ("run", "--config", "{}"),
        ("run", "--stream", "mnist", "--data", "{}"),
        ("run", "--stream", "digits", "--method", "finetune", "--out", "{}/" + "z" * 300),
        ("methods", "{}"),
        ("--plugin", "{}", "methods"),
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_has(tmp_path, monkeypatch, capsys, words, name):
    monkeypatch.chdir(tmp_path)
    if name == "empty" and words[-1].endswith("z"):
        return  # "/zzz": a name
    assert main([word.replace("{}", NAMES[name]) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.removesuffix("\n").isprintable()
    assert name == "torn" or not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "x=" + "[" * 5000,
        "x=" + "{a=" * 5000,
        "epochs=" + "9" * 5000,
        "epochs=" + "9" * 30,
        "a." * 3000 + "b=1",
        'stream = "digits"\nbackbone = ""',
        'stream = ""',
        "epochs = 1979-05-27",
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize("command", [("run", "--config"), ("streams",)], ids=" ".join)
def test_toml_that_is_made_to_break_its_reader(tmp_path, capsys, command, text):
    (tmp_path / "x.toml").write_text(text)
    assert main([*command, str(tmp_path / "x.toml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("value", ["10**20", "100000000000000000000", "-9223372036854775809"])
def test_labels_shifted_out_of_sight(tmp_path, capsys, value):
    text = f'[[task]]\nname = "a"\nsource = "digits"\nclasses = [0, 1]\ntransform = {{ shift_labels = {value} }}\n'
    (tmp_path / "x.toml").write_text(text)
    assert main(["streams", str(tmp_path / "x.toml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--threads", "--epochs", "--batch-size", "--init-channels", "--seed", "--workers"])
@pytest.mark.parametrize("value", ["-1", "9" * 30, "9" * 5000, "nan"])
def test_numbers_out_of_range(tmp_path, capsys, flag, value):
    run = ["compare"] if flag == "--workers" else ["run"]
    assert main([*run, "--stream", "digits?tasks=1", "--out", str(tmp_path / "run"), flag, value]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_threads_that_would_end_the_process(tmp_path, capsys):
    assert main(["run", "--stream", "digits", "--method", "finetune", "--out", str(tmp_path / "run"), "--threads", "1000000000"]) == 2
    assert "--threads 1000000000: expected an integer >= 0 and <= 1024" in capsys.readouterr().err


def test_a_folder_that_may_not_be_entered(tmp_path, monkeypatch, capsys):
    """Root enters every folder, so that the system's answer is made here."""

    def refuse(self: RunDirectory) -> None:
        raise PermissionError(13, "Permission denied", str(self.checkpoint))

    monkeypatch.setattr(RunDirectory, "identity", refuse)
    assert main(["predict", str(tmp_path), "x.png"]) == 2
    assert f"{tmp_path}/checkpoint: Permission denied" in capsys.readouterr().err
    with pytest.raises(LifelongError, match="checkpoint: Permission denied; give another path, or make this one readable"):
        lifelong.Learner.load(tmp_path)


def test_the_empty_path_of_an_image():
    for empty in ("", [""], ["x.png", ""]):
        with pytest.raises(LifelongError, match="an empty path; give the path of an image"):
            given_images(empty)


def test_pictures_that_would_fill_the_memory():
    """The header alone says it: nothing is decoded."""
    assert decode_images([_ppm(60_000, 60_000)], 8).problems == {0: "too many pixels"}


def _ppm(width: int, height: int) -> bytes:
    return f"P6 {width} {height} 255\n".encode() + bytes(100)
