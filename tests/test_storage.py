"""Files that are whole or absent; trees that come back as they went."""

import os
from pathlib import Path

import pytest
import torch

from lifelong.errors import LifelongError, near_miss
from lifelong.storage import load_tree, save_tree, write_file, write_text

TREE = {
    "weights": {"a": torch.arange(6.0).view(2, 3), "empty": torch.zeros(0, 4)},
    "bytes": torch.tensor([1, 2], dtype=torch.uint8),
    3: [1, 2.5, None, True, "text", ("a", {"deep": torch.tensor(7)})],
    "tiny": 5e-324,
    "third": 1 / 3,
}


def test_a_tree_comes_back(tmp_path: Path) -> None:
    save_tree(tmp_path / "tree", TREE)
    back = load_tree(tmp_path / "tree")
    assert list(back) == list(TREE)
    assert torch.equal(back["weights"]["a"], TREE["weights"]["a"])
    assert back["weights"]["empty"].shape == (0, 4)
    assert back["bytes"].dtype == torch.uint8
    deep = back[3][5]
    assert isinstance(deep, tuple)
    assert deep[1]["deep"].item() == 7
    assert back[3][:5] == TREE[3][:5]
    assert back["tiny"] == 5e-324
    assert back["third"] == 1 / 3


def test_shared_and_strided_tensors_are_stored_apart(tmp_path: Path) -> None:
    base = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save_tree(tmp_path / "tree", {"whole": base, "part": base[0], "again": base})
    back = load_tree(tmp_path / "tree")
    assert torch.equal(back["whole"], base)
    assert torch.equal(back["part"], base[0])
    back["whole"].zero_()
    assert torch.equal(back["again"], base)


def test_what_is_not_plain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object cannot be stored"):
        save_tree(tmp_path / "tree", {"a": object()})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_damaged_files_are_found_out(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "tree"
    save_tree(path, TREE)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LifelongError, match="damaged or not a lifelong file"):
        load_tree(path)
    with pytest.raises(LifelongError, match="no such file"):
        load_tree(tmp_path / "absent")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "pickle")
    with pytest.raises(LifelongError, match="damaged"):
        load_tree(tmp_path / "pickle")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fails(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(path, fails)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LifelongError, match=r"cannot write .*file/inner"):
        write_text(tmp_path / "file" / "inner", "text")


def test_the_file_is_synced_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("sync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (calls.append("rename"), replace(self, target))[1])
    write_text(tmp_path / "file", "text")
    assert calls == ["sync", "rename", "sync"]


def test_near_misses() -> None:
    assert near_miss("digit", ["digits", "cifar100-10"]) == "; did you mean 'digits'?"
    assert near_miss("x", ["b", "a"]) == "; known: a, b"
    assert near_miss("x", []) == ""
