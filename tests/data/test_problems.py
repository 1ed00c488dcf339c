"""Images that cannot be used: counted in one line, or left out."""

import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from lifelong.data import decoding
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from tests.parquet_files import numbered, png, write_parquet

NOISE = png(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))


def film() -> bytes:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


BAD = {1: NOISE[:300], 4: film(), 5: b"", 7: b"no image", 8: NOISE[:200], 9: NOISE[:400], 10: NOISE[:500]}


@pytest.fixture
def photos(tmp_path):
    """Twelve files of two classes, seven of which cannot be used; the first six are a's."""
    root = tmp_path / "data" / "photos"
    for number, pixels in enumerate(numbered(12)):
        file = root / "ab"[number // 6] / f"{number} <x>.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(BAD.get(number, png(pixels)))
    return root


def opened(tmp_path, name="folder:photos", **options):
    return Sources(tmp_path / "data", cache=tmp_path / "cache", **options).open(name)


def test_all_of_them_are_counted_in_one_line_and_five_named(photos, tmp_path):
    source = opened(tmp_path)
    assert len(source.labels("train")) == 12
    assert source.notes == ()
    with pytest.raises(LifelongError) as caught:
        source.images("train", torch.tensor([0]), 8)
    assert str(caught.value) == (
        f"7 of 12 images of 'folder:photos' (train) in {photos} cannot be used: a/1 <x>.png (truncated), a/4 <x>.png (2 frames),"
        " a/5 <x>.png (empty), b/7 <x>.png (no image, or of an unknown format), b/8 <x>.png (truncated) and 2 more;"
        " repair or remove them, or leave them out with --skip-broken"
    )
    assert not list((tmp_path / "cache" / "images").iterdir())


def test_they_are_left_out_from_the_start(photos, tmp_path, caplog):
    whole = opened(tmp_path)
    with caplog.at_level(logging.INFO, "lifelong"):
        source = opened(tmp_path, skip_broken=True)
    good = [number for number in range(12) if number not in BAD]
    assert source.labels("train").tolist() == [number // 6 for number in good]
    assert source.images("train", torch.arange(5), 4)[:, 0, 0, 0].tolist() == good
    assert source.images("train", torch.tensor([4, 0]), 4)[:, 0, 0, 0].tolist() == [11, 0]
    assert source.contents("train").tolist() == whole.contents("train")[good].tolist()
    assert source.fingerprint("train") != whole.fingerprint("train")
    (note,) = source.notes
    assert note.startswith("7 of 12 images of 'folder:photos' (train) cannot be used and are left out: a/1 <x>.png (truncated), ")
    assert note.endswith("b/8 <x>.png (truncated) and 2 more.")
    assert "b/10 <x>.png (truncated)" in caplog.text, "the log names them all"


def test_they_are_looked_for_once(photos, tmp_path, monkeypatch):
    source = opened(tmp_path, skip_broken=True)
    monkeypatch.setattr(decoding.Image, "open", lambda *args, **more: pytest.fail("looked again"))
    again = opened(tmp_path, skip_broken=True)
    assert again.notes == source.notes
    assert again.fingerprint("train") == source.fingerprint("train")
    (file,) = (tmp_path / "cache" / "problems").iterdir()
    file.write_text(file.read_text().replace("1,", "12,", 1))
    with pytest.raises(pytest.fail.Exception, match="looked again"):
        opened(tmp_path, skip_broken=True)


def test_a_repaired_file_is_taken_again(photos, tmp_path):
    opened(tmp_path, skip_broken=True)
    (photos / "a" / "1 <x>.png").write_bytes(png(numbered(1, start=1)[0]))
    source = opened(tmp_path, skip_broken=True)
    assert source.images("train", torch.arange(6), 4)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 6, 11]


def test_a_whole_set_is_the_same_with_and_without(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "own"
    write_parquet(folder / "train-0.parquet", [png(pixels) for pixels in numbered(3)], {"label": [0, 1, 0]})
    whole, skipping = opened(tmp_path, "parquet:own"), opened(tmp_path, "parquet:own", skip_broken=True)
    assert skipping.notes == ()
    assert skipping.fingerprint("train") == whole.fingerprint("train")
    whole.images("train", torch.arange(3), 4)
    monkeypatch.setattr(decoding.Image, "open", lambda *args, **more: pytest.fail("decoded again"))
    assert skipping.images("train", torch.arange(3), 4).shape == (3, 3, 4, 4)


def test_in_parquet_files_rows_are_named(tmp_path):
    folder = tmp_path / "data" / "own"
    encoded = [png(pixels) for pixels in numbered(6)]
    write_parquet(folder / "train-0.parquet", [*encoded[:2], None], {"label": [0, 1, 0]})
    write_parquet(folder / "train-1.parquet", [encoded[3], NOISE[:300], encoded[5]], {"label": [1, 0, 1]})
    with pytest.raises(
        LifelongError, match=r"2 of 6 .*row 2 of train-0\.parquet \(no image bytes.*row 1 of train-1\.parquet \(truncated\);"
    ):
        opened(tmp_path, "parquet:own").images("train", torch.tensor([0]), 4)
    source = opened(tmp_path, "parquet:own", skip_broken=True)
    assert source.labels("train").tolist() == [0, 1, 1, 1]
    assert source.images("train", torch.arange(4), 4)[:, 0, 0, 0].tolist() == [0, 1, 3, 5]


def test_nothing_is_left(tmp_path):
    write_parquet(tmp_path / "data" / "own" / "train-0.parquet", [b"x", b"y"], {"label": [0, 1]})
    with pytest.raises(LifelongError, match=r"2 of 2 images of 'parquet:own' \(train\) in .* cannot be used: .*; none is left"):
        opened(tmp_path, "parquet:own", skip_broken=True)


def test_photographs_of_all_kinds(tmp_path):
    """Grey, palette, transparent, four inks, sixteen bits, turned by the camera, one pixel: all of them become squares."""
    root = tmp_path / "data" / "photos" / "a"
    root.mkdir(parents=True)
    base = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    base.convert("L").save(root / "grey.png")
    base.quantize(8).save(root / "palette.gif")
    base.convert("RGBA").save(root / "clear.webp", lossless=True)
    base.convert("CMYK").save(root / "ink.JPG")
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(root / "deep.tiff")
    base.save(root / "turned.jpeg", exif=turned)
    base.resize((1, 1)).save(root / "pixel.bmp")
    base.resize((3000, 2)).save(root / "wide.png")
    (root.parent / "b").mkdir()
    base.save(root.parent / "b" / "plain.ppm")
    source = opened(tmp_path, skip_broken=True)
    assert source.notes == ()
    assert source.images("train", torch.arange(9), 32).shape == (9, 3, 32, 32)
