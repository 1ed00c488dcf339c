"""Files that are whole or absent; trees that come back as they went."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lifelong.errors import DamagedError, ForeignError, LifelongError, near_miss
from lifelong.json_files import read_record, write_record
from lifelong.storage import load_tree, read_plain, read_tree, save_tree, write_file, write_text

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


TYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn"]


@pytest.mark.parametrize("name", TYPES)
def test_every_type_comes_back_and_another_reader_reads_the_same(tmp_path: Path, name: str) -> None:
    """The file is an ordinary safetensors file: its own library reads it."""
    dtype = getattr(torch, name)
    tensors = [torch.arange(5).to(torch.float32).to(dtype), torch.ones(3, dtype=torch.uint8), torch.zeros(0, 2, dtype=dtype)]
    scalar = torch.ones((), dtype=torch.float32).to(dtype)
    save_tree(tmp_path / "tree", [*tensors, scalar], "somebody")
    back = load_tree(tmp_path / "tree")
    theirs = load_file(tmp_path / "tree")
    for index, tensor in enumerate([*tensors, scalar]):
        for other in (back[index], theirs[f"t{index}"]):
            assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
            assert other.reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("bits", [pytest.param(1, id="one of every byte"), pytest.param(8, id="all", marks=pytest.mark.slow)])
def test_every_flipped_bit_of_a_tree_is_found(bits: int, tmp_path: Path) -> None:
    """Those of the first words too, by which a file is known to carry digests, where digests are required."""
    path = tmp_path / "tree"
    save_tree(path, TREE, "somebody")
    whole = path.read_bytes()
    for place in range(bits * len(whole)):
        content = bytearray(whole)
        content[place // bits] ^= 1 << (4 * (place // bits) + place) % 8
        path.write_bytes(content)
        with pytest.raises(DamagedError):
            read_tree(path, owner="somebody", required=True)


def test_the_beginning_alone_says_what_is_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "tree"
    save_tree(path, TREE, "somebody", {"library": "lifelong 0"})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")  # a tensor's last byte
    stored = read_plain(path, "somebody")
    assert stored.tree["weights"] == {"a": None, "empty": None}
    assert stored.tree[3][:5] == TREE[3][:5]
    assert (stored.owner, stored.made_with) == ("somebody", {"library": "lifelong 0"})
    with pytest.raises(DamagedError, match="its tensors do not fit their digest"):
        read_tree(path)


def test_a_tree_of_somebody_else_is_refused(tmp_path: Path) -> None:
    save_tree(tmp_path / "tree", TREE, "somebody")
    for read in (read_tree, read_plain):
        with pytest.raises(ForeignError, match="belongs to another run"):
            read(tmp_path / "tree", owner="me")


def test_a_tree_of_an_earlier_version_is_read_and_known_as_such(tmp_path: Path) -> None:
    save_file({"t0": torch.arange(3)}, tmp_path / "tree", metadata={"tree": '{"dict": [["a", {"tensor": "t0"}], ["b", 1.5]]}'})
    stored = read_tree(tmp_path / "tree", owner="me")
    assert (stored.checked, stored.tree["a"].tolist(), stored.tree["b"]) == (False, [0, 1, 2], 1.5)
    assert read_plain(tmp_path / "tree", "me").tree == {"a": None, "b": 1.5}
    with pytest.raises(DamagedError, match="it carries no digest, as the files of this run do"):
        read_tree(tmp_path / "tree", required=True)


def test_every_flipped_bit_of_a_record_is_found_or_harmless(tmp_path: Path) -> None:
    """One in the key "digest" leaves a record that was never checked."""
    path, record = tmp_path / "record.json", {"a": 1, "words": "ä ö", "list": [0.1, None, True], "inner": {"x": -1e-9}}
    write_record(path, record)
    assert read_record(path) == (record, True)
    whole = path.read_bytes()
    unchecked = 0
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            found, checked = read_record(path)
        except DamagedError:
            continue
        unchecked += not checked
        assert found == record if checked else len(found) == len(record) + 1
    assert 0 < unchecked <= 8 * len("digest")


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
