"""Files of states whose digests are right and whose structure is not: one line, and nothing is allocated that is not there."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from lifelong import headers
from lifelong.errors import DamagedError, LifelongError
from lifelong.headers import DIGEST_AT, DIGEST_END, digest_of_start
from lifelong.segment import NODES, Segment, name_of_node, name_of_tensor
from lifelong.segments import Segments
from lifelong.storage import load_tree, read_plain, read_root, save_tree


def forge(file: Path, entries: dict[str, object], body: bytes = b"", **about: object) -> Path:
    """Write a file as ours are, with these entries of its header and right digests."""
    known = {"digest": "0" * 64, "body": hashlib.sha256(body).hexdigest(), "owner": "", "made_with": "{}", "tree": "null", **about}
    words = [f"{json.dumps(name)}:{entry if isinstance(entry, str) else json.dumps(entry)}" for name, entry in entries.items()]
    text = ("{" + ",".join(['"__metadata__":' + json.dumps(known, separators=(",", ":")), *words]) + "}").encode()
    start = len(text).to_bytes(8, "little") + text
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(start[:DIGEST_AT] + digest_of_start(start) + start[DIGEST_END:] + body)
    return file


def entry(shape: object = (1,), dtype: object = "F32", offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ENTRIES = {
    "of a terabyte that is not there": entry([2**40], offsets=[0, 0]),
    "whose size overflows": entry([2**62, 2**62], offsets=[0, 0]),
    "of nothing, and too wide for PyTorch": entry([0, 2**62, 2**62], offsets=[0, 0]),
    "of a negative size": entry([-1]),
    "of half a number": entry([1.5]),
    "of a true size": entry([True]),
    "of a word": entry("1"),
    "of an unknown type": entry(dtype="Q"),
    "of a list as type": entry(dtype=[]),
    "behind the end of the file": entry([1000], offsets=[0, 4000]),
    "from its end to its beginning": entry(offsets=[4, 0]),
    "at a word": entry(offsets=["0", "4"]),
    "at one place": entry(offsets=[0]),
    "that is a list": [1],
    "that is deep": "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("wrong", ENTRIES.values(), ids=ENTRIES)
def test_a_tensor(tmp_path, wrong):
    size = 0 if isinstance(wrong, dict) and wrong["data_offsets"] == [0, 0] else 4
    file = forge(
        tmp_path / "parts" / "000000.safetensors", {"x": wrong, NODES: entry([0], "U8", [0, 0])}, bytes(size), tree='{"tensor":"x"}'
    )
    with pytest.raises(DamagedError, match="cannot read"):
        load_tree(file)
    with pytest.raises(DamagedError, match="cannot read"):
        Segment.open(file, None).tensor("x")


DEEP = {"tree": '{"list":[' * 50_000 + "1" + "]}" * 50_000, "made_with": "[" * 100_000}
ABOUT = {
    **{f"{key}, deep": {key: value} for key, value in DEEP.items()},
    "a tree nested as deep as Python goes": {"tree": '{"list":[' * 900 + "1" + "]}" * 900},
    "an owner that is a number": {"owner": 3},
    "computed by no JSON": {"made_with": "x"},
    "a tree that is a number": {"tree": 3},
    "numbers outside parts": {"tree": '{"numbers":"x"}'},
    "two kinds": {"tree": '{"dict":[],"list":[]}'},
    "no kind": {"tree": "{}"},
    "keys that are lists": {"tree": '{"dict":[[{"list":[]},1]]}'},
    "three of two": {"tree": '{"dict":[[1,2,3]]}'},
    "a tensor that is not there": {"tree": '{"tensor":"nope"}'},
    "a part that is not there": {"tree": '{"part":"nope"}'},
    "a part that is a list": {"tree": '{"part":["nope"]}'},
    "a number of six thousand digits": {"tree": "9" * 6000},
}


@pytest.mark.parametrize("about", ABOUT.values(), ids=ABOUT)
@pytest.mark.parametrize("read", [load_tree, read_plain, read_root])
def test_what_a_header_says(tmp_path, about, read):
    file = forge(tmp_path / "run.safetensors", {"x": entry()}, bytes(4), **about)
    unread = read is not load_tree and about.get("tree") in ('{"tensor":"nope"}', '{"part":"nope"}')
    if unread and (read is read_root or "tensor" in str(about["tree"])):
        read(file)  # What is not looked at cannot do harm.
        return
    with pytest.raises(LifelongError, match="cannot read") as caught:
        read(file)
    assert len(str(caught.value)) < 500


def test_a_file_longer_than_it_says(tmp_path):
    """A sparse file of a terabyte takes no space on the disk, and may take none in memory."""
    file = tmp_path / "run.safetensors"
    save_tree(file, {"x": torch.ones(3)})
    with file.open("rb+") as opened:
        opened.truncate(2**40)
    for read in (load_tree, read_plain, read_root, lambda path: Segment.open(path, None)):
        with pytest.raises(DamagedError, match="longer or shorter"):
            read(file)


def segment_of(folder: Path, nodes: dict[str, str], tensors: dict[str, torch.Tensor] | None = None) -> Segments:
    """Write a segment, in both copies, and open it."""
    lines = "".join(f"{name} {text}\n" for name, text in nodes.items()).encode()
    for place in ("parts", "mirror"):
        path = folder / place / "000000.safetensors"
        path.parent.mkdir(parents=True)
        content = {NODES: torch.frombuffer(bytearray(lines), dtype=torch.uint8), **(tensors or {})}
        with path.open("wb") as file:
            headers.Body(content).write(file, {"owner": "", "made_with": "{}", "tree": "null"})
    return Segments(folder)


def chain(first: str, length: int, form: str) -> tuple[str, dict[str, str]]:
    """Return the name of a node that names another one, and so on, and the nodes."""
    nodes, name = {name_of_node(first): first}, name_of_node(first)
    for _ in range(length):
        text = form.replace("NAME", name)
        name = name_of_node(text)
        nodes[name] = text
    return name, nodes


def test_a_part_that_is_named_a_trillion_times(tmp_path):
    """Forty parts, each of which has the one before it twice."""
    name, nodes = chain("[]", 40, '{"list": [{"part": "NAME"}, {"part": "NAME"}, "' + "-" * 100_000 + '"]}')
    with pytest.raises(DamagedError, match="too often"):
        segment_of(tmp_path, nodes).tree(name)


def test_a_tensor_that_is_named_too_often(tmp_path, monkeypatch):
    monkeypatch.setattr("lifelong.segments.MOST_AGAIN", 1000)
    tensor = torch.zeros(10)
    name = name_of_tensor("F32", [10], headers.bytes_of(tensor))
    for times, fits in ((26, True), (27, False)):
        text = json.dumps({"list": [{"tensor": name}] * times})
        segments = segment_of(tmp_path / str(times), {name_of_node(text): text}, {name: tensor})
        if fits:
            assert len(segments.tree(name_of_node(text))) == times
        else:
            with pytest.raises(DamagedError, match="too often"):
                segments.tree(name_of_node(text))


def test_parts_in_parts_without_end(tmp_path):
    name, nodes = chain("[]", 5000, '{"list": [{"part": "NAME"}]}')
    segments = segment_of(tmp_path, nodes)
    with pytest.raises(DamagedError, match="nested too deeply"):
        segments.tree(name)
    # What names them all takes them one after the other.
    found: set[str] = set()
    segments.below(name, found, set())
    assert found == nodes.keys()


def test_numbers_of_another_type(tmp_path):
    tensor = torch.zeros(1000, dtype=torch.uint8)
    name = name_of_tensor("U8", [1000], headers.bytes_of(tensor))
    text = json.dumps({"numbers": name})
    with pytest.raises(DamagedError, match="numbers of a type"):
        segment_of(tmp_path, {name_of_node(text): text}, {name: tensor}).tree(name_of_node(text))
