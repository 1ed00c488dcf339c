import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lifelong.data.cache import Cache, cache_folder
from lifelong.errors import LifelongError

IMAGES = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Decoder:
    """Gives the images in three pieces and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self):
        self.calls += 1
        yield from IMAGES.split([20, 25, 5])


def rows(cache: Cache, decode, indices=(3, 49, 3, 0), key="k", size=4):
    return cache.rows("some set: train", key, torch.tensor(indices), (50, size), decode)


def test_asked_rows_in_asked_order_and_one_decoding(tmp_path):
    decode = Decoder()
    for _ in range(3):
        assert torch.equal(rows(Cache(tmp_path), decode), IMAGES[[3, 49, 3, 0]])
    assert decode.calls == 1
    rows(Cache(tmp_path), decode, key="other")
    assert decode.calls == 2


def test_the_file_is_a_safetensors_file(tmp_path):
    rows(Cache(tmp_path), Decoder())
    (file,) = (tmp_path / "images").iterdir()
    assert torch.equal(load_file(file)["images"], IMAGES)
    assert file.name.startswith("some_set_train-4-")


@pytest.mark.parametrize("damage", ["truncated", "empty", "longer", "another header", "text"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    decode = Decoder()
    rows(Cache(tmp_path), decode)
    (file,) = (tmp_path / "images").iterdir()
    whole = file.read_bytes()
    file.write_bytes(
        {
            "truncated": whole[:-1],
            "empty": b"",
            "longer": whole + b"x",
            "another header": whole.replace(b"[50,", b"[49,"),
            "text": b"hello",
        }[damage]
    )
    assert torch.equal(rows(Cache(tmp_path), decode), IMAGES[[3, 49, 3, 0]])
    assert decode.calls == 2
    assert file.read_bytes() == whole


@pytest.mark.parametrize("damage", ["one bit of a pixel", "every pixel", "two images changed places", "another set's images", "a digest"])
def test_an_image_that_is_not_what_was_decoded_is_decoded_again(tmp_path, damage, caplog):
    """Of images that nobody asks for nothing is read: they are found when somebody does."""
    decode = Decoder()
    rows(Cache(tmp_path), decode)
    (file,) = (tmp_path / "images").iterdir()
    whole = bytearray(file.read_bytes())
    start, each = 8 + int.from_bytes(whole[:8], "little"), 48
    first, second = (slice(start + each * row, start + each * (row + 1)) for row in (3, 49))
    if damage == "one bit of a pixel":
        whole[start + each * 49 + 7] ^= 64
    elif damage == "every pixel":
        whole[start : start + 50 * each] = bytes(255 - value for value in whole[start : start + 50 * each])
    elif damage == "two images changed places":
        whole[first], whole[second] = whole[second], whole[first]
    elif damage == "another set's images":
        rows(Cache(tmp_path), lambda: iter([255 - IMAGES]), key="other")
        (other,) = (each for each in (tmp_path / "images").iterdir() if each != file)
        whole = bytearray(other.read_bytes())
    else:
        whole[-1] ^= 1
    good = file.read_bytes()
    file.write_bytes(whole)
    assert torch.equal(rows(Cache(tmp_path), decode), IMAGES[[3, 49, 3, 0]])
    assert decode.calls == 2
    assert "damaged; all are decoded again" in caplog.text
    assert file.read_bytes() == good


def test_every_flipped_bit_of_a_small_cache_is_found_or_harmless(tmp_path):
    """All files that it holds: images, contents, findings, checksums."""
    source = tmp_path / "train-0.parquet"
    source.write_bytes(b"one")
    contents = np.arange(5, dtype=np.uint64) + (1 << 63)
    pixels = IMAGES[:5]

    def ask(cache: Cache) -> list:
        images = cache.rows("set", "k", torch.arange(5), (5, 4), lambda: iter([pixels]))
        numbers = cache.numbers("set", "k", 5, lambda: contents)
        found = cache.findings("set", "k", 5)
        if found is None:
            cache.keep_findings("set", "k", 5, [[1, "a", "b", "c"]])
            found = cache.findings("set", "k", 5)
        return [images.tolist(), numbers.tolist(), found, cache.checksum([source])]

    wanted = ask(Cache(tmp_path / "cache"))
    assert wanted[1] == contents.tolist()
    flips = 0
    for file in sorted(file for file in (tmp_path / "cache").rglob("*") if file.is_file()):
        whole = file.read_bytes()
        for bit in random.Random(file.suffix).sample(range(8 * len(whole)), 60):
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)
            assert ask(Cache(tmp_path / "cache")) == wanted, (file.name, bit)
            file.write_bytes(whole)
            flips += 1
    assert flips == 240


def test_an_interrupted_decoding_leaves_nothing(tmp_path):
    def broken():
        yield IMAGES[:20]
        raise LifelongError("x.parquet, row 20: not a readable image")

    with pytest.raises(LifelongError, match=r"^x\.parquet, row 20"):
        rows(Cache(tmp_path), broken)
    assert list((tmp_path / "images").iterdir()) == []


def test_fewer_images_than_announced(tmp_path):
    with pytest.raises(LifelongError, match="20 images where 50 were announced"):
        rows(Cache(tmp_path), lambda: iter([IMAGES[:20]]))
    assert list((tmp_path / "images").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "cache"
    with pytest.raises(LifelongError, match="set LIFELONG_CACHE to a folder that can be written") as caught:
        rows(Cache(folder), Decoder())
    assert str(folder) in str(caught.value)
    with pytest.raises(LifelongError, match="LIFELONG_CACHE"):
        Cache(folder).checksum([tmp_path / "file"])


def test_checksum_is_of_content_and_remembered(tmp_path, monkeypatch):
    cache, file = Cache(tmp_path / "cache"), tmp_path / "train-0.parquet"
    file.write_bytes(b"one")
    first = cache.checksum([file])
    other = tmp_path / "copy" / file.name
    other.parent.mkdir()
    other.write_bytes(b"one")
    assert cache.checksum([other]) == first
    assert cache.checksum([other, file]) != first

    opened = []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *rest, **more: opened.append(self) or original(self, *rest, **more))
    assert Cache(tmp_path / "cache").checksum([file]) == first
    assert file not in opened

    times = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.checksum([file]) != first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}'])
def test_a_damaged_memory_of_checksums_is_made_again(tmp_path, content):
    file = tmp_path / "train-0.parquet"
    file.write_bytes(b"one")
    good = Cache(tmp_path).checksum([file])
    (record,) = (tmp_path / "checksums").iterdir()
    record.write_text(content)
    assert Cache(tmp_path).checksum([file]) == good
    assert str(file.resolve()) in json.loads(record.read_text())["files"]


def test_checksums_are_remembered_by_folder(tmp_path):
    """What other folders hold need not be read: a machine has seen very many files in time."""
    files = [tmp_path / folder / f"{number}.png" for number in range(2) for folder in ("b", "a")]
    for number, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * (number + 1))
    assert [size for size, _ in Cache(tmp_path).digests(files)] == [1, 2, 3, 4]
    records = [json.loads(record.read_text())["files"] for record in (tmp_path / "checksums").iterdir()]
    assert sorted(sorted(known) for known in records) == [
        [str(file) for file in sorted(files) if file.parent.name == name] for name in "ab"
    ]


def test_a_missing_file(tmp_path):
    with pytest.raises(LifelongError, match=r"cannot read .*gone\.parquet"):
        Cache(tmp_path).checksum([tmp_path / "gone.parquet"])


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("LIFELONG_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "lifelong"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_picking_rows_reads_only_their_pages(tmp_path):
    """Ten images of a file of 96 MB: a process of its own, whose peak memory nothing else has raised, must not grow by much."""
    piece = torch.zeros(1000, 3, 32, 32, dtype=torch.uint8)
    Cache(tmp_path).rows("large", "k", torch.tensor([0]), (32_000, 32), lambda: (piece for _ in range(32)))
    script = f"""
import torch
from pathlib import Path
from lifelong.data.cache import Cache
def pick(indices):
    return Cache(Path({str(tmp_path)!r})).rows("large", "k", indices, (32_000, 32), lambda: 1 / 0)
def peak():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
start = peak()
pick(torch.arange(0, 32_000, 3200))
few = peak()
pick(torch.arange(32_000))
print(few - start, peak() - start)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    few, all_of_them = map(int, done.stdout.split())
    assert few < 20, "MB"
    assert all_of_them > 75, "the measure itself"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_hundred_tasks_need_no_more_memory_than_ten(tmp_path):
    """Over five sources of 31 MB each, a process of its own whose peak is read after 10 tasks and after 100."""
    piece = torch.zeros(1000, 3, 32, 32, dtype=torch.uint8)
    for number in range(5):
        Cache(tmp_path).rows(f"source {number}", "k", torch.tensor([0]), (10_000, 32), lambda: (piece for _ in range(10)))
    script = f"""
import torch
from pathlib import Path
from lifelong.data.cache import Cache
cache = Cache(Path({str(tmp_path)!r}))
generator = torch.Generator().manual_seed(0)
def peak():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
start = peak()
for number in range(100):
    images = cache.rows(f"source {{number % 5}}", "k", torch.randperm(10_000, generator=generator)[:1000], (10_000, 32), lambda: 1 / 0)
    if number == 9:
        ten = peak()
print(ten - start, peak() - start, peak() / ten)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    ten, hundred, ratio = map(float, done.stdout.split())
    assert ten < 30, "MB: two tasks of 3 MB, not the 31 MB of a file"
    assert hundred < ten + 10
    assert ratio < 1.1
