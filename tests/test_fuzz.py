"""Whatever a file or an address holds, it is read, or there is one line about it: nothing else comes out of the parsers.

Each input is made from a good one and a number, so that one that fails can be made again: `mutated(seed)`.
"""

import io
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lifelong.data.address import parse_address
from lifelong.data.images import decode_images
from lifelong.data.lists import list_csv
from lifelong.data.vetting import _read
from lifelong.errors import LifelongError
from lifelong.experiment.curves import read_curves
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.methods.registry import known_methods
from lifelong.settings.fields import settings_of
from lifelong.settings.resolve import resolve
from lifelong.settings.training import TrainingSettings
from lifelong.streams.reading import read_stream

STORED = Path(__file__).parent / "experiment" / "stored" / "par"
SUMMARY, IDENTITY = STORED / "summary.json", STORED / "checkpoint" / "identity.json"

STREAM = """name = "a stream"
image_size = 16
augment = { crop = 2, flip = true, brightness = 0.25 }
[[task]]
name = "one"
source = "digits"
classes = [0, 1, "2"]
train_per_class = 10
transform = { rotate = 90.0, invert = true, background = "red", shift_labels = 1 }
[[task]]
name = "two"
source = "folder:birds?flip=true"
classes = { same_as = "one" }
normalize = { mean = [0.1, 0.2, 0.3], std = [1.0, 1.0, 1.0] }
valid_fraction = 0.1
"""
DEFAULTS = {key.replace("_", "-"): json.dumps(item.default) for key, item in settings_of(TrainingSettings).items()}
SETTINGS = "\n".join(['stream = "digits"', "seed = 3", *(f"{key} = {value}" for key, value in DEFAULTS.items())])
ADDRESSES = (
    "csv:list.csv?image=file&label=kind&flip=true",
    "hub:owner/name?train=a+b&test=c&size=32",
    "folder:a/b?tasks=3&size=8",
    "mnist?flip=false",
)
LIST = "image,label,split\n" + "".join(f"{row}.png,{'ab'[row % 2]},{('train', 'test')[row % 3 == 0]}\n" for row in range(9))
CURVES = "".join(f'{{"task": 0, "stage": "train", "epoch": {epoch}, "loss": 0.5, "accuracy": null}}\n' for epoch in range(9))
PIECES = [
    *(b"", b"\0", b"\xff", b"\xff\xfe", b"\x1b[2J", b"\r\n", "\u202e".encode()),
    *(b"-", b'"', b"'''", b"=", b"{", b"}", b"?", b"&", b"[" * 3000, b"{" * 3000),
    *(b"9" * 5000, b"9" * 20, b"1e999", b"nan", b"true", b"null", b"\\u0000"),
]


def pictures() -> list[bytes]:
    """One of each format, and of each kind of pixels."""
    chance = np.random.default_rng(0)
    colours = Image.fromarray(chance.integers(0, 256, (9, 12, 3)).astype(np.uint8))
    deep = Image.fromarray(chance.integers(0, 65536, (9, 12)).astype(np.uint16))
    kinds = {
        "PNG": (colours, colours.convert("P"), colours.convert("LA"), colours.convert("1"), deep),
        "JPEG": (colours, colours.convert("L"), colours.convert("CMYK")),
        "TIFF": (colours, deep, colours.convert("CMYK")),
        **dict.fromkeys(("GIF", "BMP", "PPM", "WEBP", "TGA", "JPEG2000"), (colours,)),
    }
    found = []
    for name, images in kinds.items():
        for image in images:
            file = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(file, name, **({"exif": exif} if name in ("PNG", "JPEG", "WEBP") else {}))
            found.append(file.getvalue())
    return found


def tables() -> list[bytes]:
    """Small parquet files, plain and packed."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": bytes([number] * 40), "path": None} for number in range(20)], kind)
    table = pa.table({"image": images, "label": pa.array(["a", "b"] * 10), "split": pa.array(["train", "test"] * 10)})
    table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": {"label": {"names": ["a", "b"]}}}}).encode()})
    found = []
    for packed in ("NONE", "snappy", "zstd"):
        file = io.BytesIO()
        pq.write_table(table, file, compression=packed)
        found.append(file.getvalue())
    return found


def mutated(seed: int, goods: list[bytes]) -> bytes:
    """A good input with some bytes changed, put in, taken out or doubled."""
    chance = random.Random(seed)
    content = bytearray(chance.choice(goods))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(content) + 1)
        length = chance.choice((1, 1, 2, 4, 8, len(content)))
        change = chance.randrange(5)
        if change == 0 and at < len(content):
            content[at] ^= 1 << chance.randrange(8)
        elif change == 1:
            content[at : at + length] = chance.randbytes(len(content[at : at + length]))
        elif change == 2:
            del content[at : at + length]
        elif change == 3:
            content[at:at] = chance.choice(PIECES)
        else:
            content[at:at] = content[at : at + min(length, 64)]
    return bytes(content)


def to_file(read: Callable[[Path], object], name: str) -> Callable[[bytes, Path], object]:
    """A parser of a file, as one of bytes."""

    def parse(content: bytes, folder: Path) -> object:
        file = folder / name
        file.write_bytes(content)
        return read(file)

    return parse


METHODS = {name: entry.settings for name, entry in known_methods().items()}


def address(content: bytes, folder: Path) -> object:
    """Read the name of a source as a command line gives it."""
    return parse_address(content.decode("utf-8", "surrogateescape"), stream=True)


def settings(file: Path) -> object:
    """Read a configuration."""
    return resolve(None, None, None, None, file, {}, methods=METHODS)


PARSERS: dict[str, tuple[list[bytes], Callable[[bytes, Path], object]]] = {
    "images": (pictures(), lambda content, folder: decode_images([content], 8)),
    "parquet": (tables(), to_file(lambda file: _read(file, ("image",), ("label",)), "train.parquet")),
    "streams": ([STREAM.encode()], to_file(read_stream, "stream.toml")),
    "settings": ([SETTINGS.encode()], to_file(settings, "config.toml")),
    "addresses": ([text.encode() for text in ADDRESSES], address),
    "lists": ([LIST.encode()], to_file(lambda file: list_csv(file, ("image",), ("label",), {}), "list.csv")),
    "summaries": ([SUMMARY.read_bytes()], to_file(lambda file: read_summary(file.parent), "summary.json")),
    "identities": ([IDENTITY.read_bytes()], to_file(lambda file: RunDirectory(file.parent.parent).identity(), "checkpoint/identity.json")),
    "curves": ([CURVES.encode()], to_file(read_curves, "curves.jsonl")),
}


def fuzz(folder: Path, seconds: float, seed: int) -> Counter[str]:
    """Read mutated inputs, each parser in its turn; returns how many each has read.

    Raises:
        AssertionError: something else than an answer or one line came out; it names the input.
    """
    (folder / "checkpoint").mkdir(exist_ok=True)
    for number in range(9):
        (folder / f"{number}.png").touch()
    read: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, (goods, parse) in PARSERS.items():
            content = mutated(seed, goods)
            said = ""
            try:
                parse(content, folder)
            except LifelongError as error:
                said = str(error)
            except Exception as error:
                raise AssertionError(f"{name}, input {seed}: {type(error).__name__}: {error}") from error
            assert said.isprintable(), (name, seed)
            read[name] += 1
        seed += 1
    return read


@pytest.fixture(autouse=True)
def _no_warnings_of_decoders() -> None:
    """Pillow warns of damaged files in many words, which are not errors here."""
    import warnings

    warnings.simplefilter("ignore")


def test_the_good_inputs_are_read(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    for number in range(9):
        (tmp_path / f"{number}.png").touch()
    for goods, parse in PARSERS.values():
        for good in goods:
            parse(good, tmp_path)
    assert not any(decode_images([picture], 8).problems for picture in pictures())


def test_parsers_for_a_moment(tmp_path):
    assert min(fuzz(tmp_path, 3.0, seed=0).values()) > 10


@pytest.mark.slow
def test_parsers_for_a_minute(tmp_path):
    read = fuzz(tmp_path, 60.0, seed=int(os.environ.get("LIFELONG_FUZZ_SEED", "1000000")))
    print(dict(read))
    assert min(read.values()) > 100
