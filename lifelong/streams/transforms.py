"""Transform every image of a task before training."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Transform:
    """A fixed change of a task's images and labels. Images are rotated first, then inverted, then given a background.

    Attributes:
        rotate: degrees counter-clockwise; corners that open up are black.
        invert: dark becomes light.
        background: a colour c in [0, 1] per channel that replaces black: x + (255 - x) * c.
        shift_labels: the class with id i gets id (i + shift_labels) mod C.
    """

    rotate: float = 0.0
    invert: bool = False
    background: tuple[float, float, float] | None = None
    shift_labels: int = 0

    def images(self, images: UInt8[Tensor, "n 3 s s"]) -> UInt8[Tensor, "n 3 s s"]:
        """Return the transformed images.

        Source: the background is CTrL's rainbow transformation.
        """
        if self.rotate % 360:
            images = _rotate(images, self.rotate)
        if self.invert:
            images = 255 - images
        if self.background is not None:
            colour = torch.tensor(self.background, dtype=torch.float32, device=images.device)[:, None, None]
            images = (images + (255 - images) * colour).round().to(torch.uint8)
        return images.contiguous()

    def order(self, classes: int) -> Int64[Tensor, "c"]:
        """Return, for each new label, the label it had before."""
        return (torch.arange(classes) - self.shift_labels) % classes

    def __str__(self) -> str:
        """Describe the transform in words; empty if nothing changes."""
        words = []
        if self.rotate % 360:
            words.append(f"rotated by {self.rotate:g} degrees")
        if self.invert:
            words.append("inverted")
        if self.background is not None:
            known = {colour: name for name, colour in COLOURS.items()}
            words.append(f"background {known.get(self.background) or list(self.background)}")
        if self.shift_labels:
            words.append(f"labels shifted by {self.shift_labels}")
        return ", ".join(words)


def _rotate(images: UInt8[Tensor, "n 3 s s"], degrees: float) -> UInt8[Tensor, "n 3 s s"]:
    turns, rest = divmod(degrees, 90)
    return images.rot90(int(turns), (2, 3)) if rest == 0 else rotate_bilinear(images, degrees)


def rotate_bilinear(images: UInt8[Tensor, "n 3 s s"], degrees: float) -> UInt8[Tensor, "n 3 s s"]:
    """Rotate images counter-clockwise about their centre by any angle: bilinear, rounded, with black corners."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    cos, sin = float(angle.cos()), float(angle.sin())
    # Each pixel of the result looks where it came from: its place, turned back. The y axis points down.
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], dtype=torch.float32, device=images.device).expand(len(images), 2, 3)
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    turned = functional.grid_sample(images.to(torch.float32), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return turned.round_().clamp_(0, 255).to(torch.uint8)
