"""The memory that decoding takes: what a pixel costs, one budget for all threads, and large images in strips with equal pixels."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from lifelong.data import decoding, pixel_formats
from lifelong.data.budget import Budget
from lifelong.data.images import decode_images

MIB = 2**20


def test_threads_never_take_more_than_there_is():
    budget, lock = Budget(100 * MIB), threading.Lock()
    held, most, done = 0, 0, []

    def decode(amount: int) -> None:
        nonlocal held, most
        with budget.taken(amount):
            with lock:
                held += min(amount, budget.total)
                most = max(most, held)
            time.sleep(0.002)
            with lock:
                held -= min(amount, budget.total)
        done.append(amount)

    amounts = [5 * MIB, 60 * MIB, 99 * MIB, 100 * MIB, 5000 * MIB, 33 * MIB] * 5
    threads = [threading.Thread(target=decode, args=(amount,)) for amount in amounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == sorted(amounts)  # nobody waits for ever
    assert 60 * MIB <= most <= 100 * MIB
    assert budget._left == budget.total


def test_what_fails_gives_back_what_it_took():
    budget = Budget(10 * MIB)
    with pytest.raises(RuntimeError), budget.taken(9 * MIB):
        raise RuntimeError
    with budget.taken(10 * MIB):
        assert not budget._left


def png(side: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG")
    return file.getvalue()


def test_an_image_that_takes_more_than_all(monkeypatch):
    monkeypatch.setattr(decoding, "DECODING", Budget(100 * 100 * 12))
    found = decode_images([png(100), png(101), png(100, "I;16")], 4)
    assert found.problems == {1: "too many pixels", 2: "too many pixels"}  # of 16 bits a pixel takes twice as much


def test_a_broken_image_gives_back_its_memory(monkeypatch):
    budget = Budget(2**30)
    monkeypatch.setattr(decoding, "DECODING", budget)
    large = png(1000)
    assert len(decode_images([large[: len(large) // 2], large] * 3, 4).problems) == 3
    assert budget._left == budget.total


def test_all_pixels_that_pillow_allows_fit():
    """Photographs of 8 bits a colour are not refused for their memory, only for their pixels."""
    assert decoding.DECODING.total >= decoding._MOST_PIXELS * decoding._PLAIN


@pytest.mark.parametrize("turned", [1, 6, 9])
@pytest.mark.parametrize("clear", [None, 5, (1, 2, 3)])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_a_large_image_has_the_pixels_of_a_small_one(monkeypatch, mode, clear, turned):
    """In strips of eleven rows and as a whole: a pixel becomes the same."""
    chance = np.random.default_rng(0)
    bands = [Image.fromarray(chance.integers(0, 256, (37, 53)).astype(np.uint8)) for _ in Image.new(mode, (1, 1)).getbands()]
    picture = bands[0].convert(mode) if mode in ("1", "P") else Image.merge(mode, bands)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turned
    form = "PNG" if mode in ("1", "L", "P", "LA", "RGB", "RGBA") else "JPEG"
    takes = (mode == "RGB" and isinstance(clear, tuple)) or (mode in ("L", "P") and isinstance(clear, int))
    picture.save(file, form, exif=exif, **({"transparency": clear} if takes else {}))
    whole = decode_images([file.getvalue()], 16)
    monkeypatch.setattr(pixel_formats, "_STRIP", 53 * 11)
    strips = decode_images([file.getvalue()], 16)
    assert (strips.images == whole.images).all()
    assert strips[1:] == whole[1:]
    opened = Image.open(io.BytesIO(file.getvalue()))
    before = dict(opened.info)
    assert (decode_images([opened], 16).images == whole.images).all()
    assert {key: opened.info[key] for key in before} == before  # a program's own picture is as it was
