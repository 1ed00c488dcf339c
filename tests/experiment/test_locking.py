"""One process to a run directory, on file systems with locks and without; and no links in it."""

import errno
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import filelock
import pytest

from lifelong.errors import LifelongError
from lifelong.experiment import locking
from lifelong.experiment.locking import HELD, JOB, LOCK, OWN, folder_lock, held

fcntl = pytest.importorskip("fcntl")

WITHOUT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def no_locks(number: int):
    """What `fcntl.flock` does on a file system that has no locks."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def enter(folder: Path, answers) -> None:
    """Try to get the lock in another process, and say what came of it."""
    try:
        with folder_lock(folder):
            answers.put("got it")
    except LifelongError as error:
        answers.put(str(error))


def elsewhere(folder: Path) -> str:
    """What another process is told that wants the folder; it inherits what is monkeypatched here."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=enter, args=(folder, answers))
    process.start()
    process.join(30)
    return answers.get()


def test_the_system_s_lock(tmp_path):
    folder = tmp_path / "run"
    with folder_lock(folder) as note:
        assert note == ""
        assert "another process is running" in elsewhere(folder)
    assert elsewhere(folder) == "got it"
    assert [file.name for file in folder.iterdir()] == [LOCK]


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002])
def test_the_lock_s_file_follows_the_umask(tmp_path, mask):
    """Colleagues of a group that may write go on with a run; others see nothing of one that they may not see."""
    before = os.umask(mask)
    try:
        for _ in range(2):
            with folder_lock(tmp_path / "run"):
                assert (tmp_path / "run" / LOCK).stat().st_mode & 0o777 == 0o666 & ~mask
    finally:
        os.umask(before)


@pytest.mark.parametrize("links", [True, False])
def test_the_file_of_a_process_that_was_quicker_stays(tmp_path, monkeypatch, links):
    """Two find that the holder has ended; one of them holds the folder before the other drops the dead one's file."""
    if not links:
        monkeypatch.setattr(os, "link", no_locks_of_names)
    file, alive = tmp_path / HELD, locking._this_process()
    file.write_text(json.dumps(alive))
    locking._drop(file, {"process": 1, "host": "another", "started": ""})
    assert locking._holder(file) == alive
    assert [each.name for each in tmp_path.iterdir()] == [HELD]


def no_locks_of_names(old: Path, new: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("number", WITHOUT)
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", no_locks(number))
    with folder_lock(tmp_path) as note:
        assert os.strerror(number) in note
        assert HELD in note
        said = elsewhere(tmp_path)
        assert f"another process ({os.getpid()} on {socket.gethostname()}) is running in {tmp_path}" in said
        assert str(tmp_path / HELD) in said
    assert elsewhere(tmp_path) == "got it"
    assert [file.name for file in tmp_path.iterdir()] == [LOCK]


def test_no_second_names_either(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks(errno.ENOLCK))
    monkeypatch.setattr(os, "link", no_locks_of_names)
    with folder_lock(tmp_path):
        assert "another process" in elsewhere(tmp_path)
    assert elsewhere(tmp_path) == "got it"


def dead_process() -> int:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    return process.pid or 0


@pytest.mark.parametrize(
    "holder",
    [
        pytest.param(lambda: {"process": dead_process(), "host": socket.gethostname(), "started": ""}, id="has ended"),
        pytest.param(lambda: {"process": os.getpid(), "host": socket.gethostname(), "started": "1"}, id="its number is another's now"),
        pytest.param(lambda: {"process": 10**30, "host": socket.gethostname(), "started": ""}, id="no number of a process"),
        pytest.param(lambda: ["torn"], id="of a wrong kind"),
    ],
)
def test_what_a_dead_process_left(tmp_path, monkeypatch, holder):
    (tmp_path / HELD).write_text(json.dumps(holder()))
    if sys.platform.startswith("linux") or "1" not in (tmp_path / HELD).read_text():
        assert elsewhere(tmp_path) == "got it"  # where there are locks it is no concern
        monkeypatch.setattr(fcntl, "flock", no_locks(errno.ENOSYS))
        assert elsewhere(tmp_path) == "got it"
        assert not (tmp_path / HELD).exists()


def test_the_holder_on_another_machine_is_believed(tmp_path, monkeypatch):
    (tmp_path / HELD).write_text(json.dumps({"process": 1, "host": "another", "started": ""}))
    for flock in (fcntl.flock, no_locks(errno.ENOLCK)):  # also where this machine has locks
        monkeypatch.setattr(fcntl, "flock", flock)
        assert "another process (1 on another) is running" in elsewhere(tmp_path)


def test_a_job_that_is_queued_again_takes_its_own_folder(tmp_path, monkeypatch):
    """Its first node has failed, and its holder is still named; the holders of other jobs are believed."""
    monkeypatch.setattr(fcntl, "flock", no_locks(errno.ENOLCK))
    (tmp_path / HELD).write_text(json.dumps({"process": 1, "host": "another", "started": "", "job": "7_1"}))
    monkeypatch.setenv(JOB, "7_2")
    assert "another process (1 on another) is running" in elsewhere(tmp_path)
    monkeypatch.setenv(JOB, "7_1")
    assert elsewhere(tmp_path) == "got it"
    assert not (tmp_path / HELD).exists()


@pytest.mark.parametrize("number", [None, errno.ENOLCK])
def test_who_holds_a_folder_can_be_asked(tmp_path, monkeypatch, number):
    """In either way of locking; it changes nothing."""
    if number is not None:
        monkeypatch.setattr(fcntl, "flock", no_locks(number))
    assert held(tmp_path / "none") is None
    with folder_lock(tmp_path):
        assert str(held(tmp_path)) == elsewhere(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert held(tmp_path) is None
    assert sorted(tmp_path.iterdir()) == before


def test_the_lock_is_that_of_earlier_versions(tmp_path):
    with filelock.FileLock(tmp_path / LOCK, timeout=0):
        assert "another process is running" in elsewhere(tmp_path)


@pytest.mark.parametrize("name", OWN)
def test_no_link_in_a_run_directory(tmp_path, name):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("kept")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(victim if "." not in name.strip(".") else victim / "kept")
    with pytest.raises(LifelongError, match="is a link, through which nothing is written or deleted") as caught, folder_lock(folder):
        pass
    assert str(folder / name) in str(caught.value)
    assert (victim / "kept").read_text() == "kept"


def test_a_link_deeper_in_it_and_one_to_nowhere(tmp_path):
    stages = tmp_path / "run" / "checkpoint" / "stages"
    stages.mkdir(parents=True)
    (stages / "task-000").symlink_to(tmp_path / "nowhere")
    with pytest.raises(LifelongError, match=r"stages/task-000 is a link"), folder_lock(tmp_path / "run"):
        pass


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "notes").symlink_to(tmp_path)  # and what is not ours is no concern
    with folder_lock(tmp_path / "run"):
        pass


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "checkpoint").mkdir()

    def scandir(path: str):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may read every folder
    with pytest.raises(LifelongError, match=r"cannot look into .*checkpoint: Permission denied"), folder_lock(tmp_path):
        pass


def test_locking_names_the_errors_of_file_systems():
    assert set(WITHOUT) <= locking._NO_LOCKS


@pytest.mark.parametrize(("inner", "advice"), [("checkpoint", "work on a copy of the run"), ("photos", "use another folder")])
def test_a_folder_that_cannot_be_written_to(tmp_path, inner, advice):
    """Root writes everywhere, but not over a folder."""
    for name in (inner, ".lock"):
        (tmp_path / name).mkdir()
    with pytest.raises(LifelongError, match=f"cannot write to .*: Is a directory; make it writable, or {advice}$"), folder_lock(tmp_path):
        pass
