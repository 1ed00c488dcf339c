"""Small image sets in parquet files, as `datasets` writes them."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(pixels: np.ndarray) -> bytes:
    """An image as PNG bytes: (h, w) grey or (h, w, 3) colour."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def numbered(count: int, size: int = 4, start: int = 0) -> list[np.ndarray]:
    """Colour images each of one colour, all different, that say their number: number = red + 256 * green."""
    images = []
    for number in range(start, start + count):
        pixels = np.zeros((size, size, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = number % 256, number // 256
        images.append(pixels)
    return images


def write_parquet(
    file: Path,
    images: Sequence[bytes | None],
    columns: Mapping[str, Any],
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    image_column: str = "image",
    plain_bytes: bool = False,
) -> Path:
    """A parquet file of encoded images; `names` gives columns their class names in the header that `datasets` writes."""
    if plain_bytes:
        stored = pa.array(images, pa.binary())
    else:
        stored = pa.array([{"bytes": image, "path": None} for image in images], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({image_column: stored, **columns})
    if names is not None:
        features: dict[str, Any] = {image_column: {"_type": "Image"}}
        features |= {column: {"names": list(words), "_type": "ClassLabel"} for column, words in names.items()}
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def made_folder(
    folder: Path, train: Sequence[int], test: Sequence[int] | None, *, names: Sequence[str] | None = None, size: int = 4
) -> Path:
    """A folder with `train[c]` and `test[c]` numbered images of class c, the classes mixed; numbers go on from train to test."""
    start = 0
    for split, counts in (("train", train), ("test", test)):
        if counts is None:
            continue
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
        images = [png(pixels) for pixels in numbered(len(labels), size, start)]
        start += len(labels)
        words = {"label": names if names is not None else [f"c{number}" for number in range(len(counts))]}
        write_parquet(folder / f"{split}-00000.parquet", images, {"label": labels}, names=words)
    return folder
