"""Make a stream whose images look like nothing that the pretrained network tells apart: digits blended into photographs.

    python results/blended.py FOLDER        # needs LIFELONG_DATA with mnist, cifar10 and cifar100

Each image is |photograph - digit|, as in MNIST-M (Ganin et al., JMLR 2016): a digit inverts the photograph under it. The photographs are
CIFAR-100's. Written are FOLDER/blended.toml and the pictures that it names: blended digits, photographs, and few other blended digits.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

import lifelong
from lifelong.data.task import Split

SOURCES = """
name = "sources"
image_size = 32

[[task]]
name = "digits"
source = "mnist"
train_per_class = 250
valid_per_class = 50
test_per_class = 200

[[task]]
name = "photographs"
source = "cifar100"
classes = 100
train_per_class = 60
valid_per_class = 20
test_per_class = 40
"""

STREAM = """
name = "blended"
image_size = 32

[[task]]
name = "blended-digits"
source = "folder:pictures"
train_per_class = 200
valid_per_class = 40
test_per_class = 100

[[task]]
name = "photographs"
source = "cifar10"
train_per_class = 100
valid_per_class = 20
test_per_class = 100

[[task]]
name = "blended-digits-again"
source = "folder:pictures"
classes = { same_as = "blended-digits" }
train_per_class = 20
valid_per_class = 10
test_per_class = 100
"""


def main() -> None:
    """Write the pictures and the stream."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.toml"
    sources.write_text(SOURCES, encoding="utf-8")
    digits, photographs = lifelong.open_stream(sources)
    generator = torch.Generator().manual_seed(0)
    for name in ("train", "valid", "test"):
        write(getattr(digits, name), getattr(photographs, name), folder / "pictures" / name, generator)
    (folder / "blended.toml").write_text(STREAM, encoding="utf-8")


def write(digits: Split, photographs: Split, folder: Path, generator: torch.Generator) -> None:
    """Blend each digit into a photograph drawn at random, and write the picture into the folder of its class."""
    drawn = torch.randint(0, len(photographs), (len(digits),), generator=generator)
    pictures = (photographs.images[drawn].int() - digits.images.int()).abs().to(torch.uint8)
    for place, (picture, label) in enumerate(zip(pictures, digits.labels.tolist(), strict=True)):
        file = folder / str(label) / f"{place:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(file)


if __name__ == "__main__":
    main()
