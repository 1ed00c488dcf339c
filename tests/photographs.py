"""A person's photographs, as they come: odd names, odd formats, a file that is not an image."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

TASKS = {
    'birds & "bees"': ("grey heron", "l'étourneau"),
    "<img src=x onerror=alert(1)>": ("[red]house", "日本の家"),
    "pets 2": ("cat", "dog's"),
}


def picture(number: int, hue: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A photograph of sorts: a gradient of a hue, some noise, no two alike."""
    chance = np.random.default_rng(number)
    ramp = np.linspace(0, 1, size[0])[None, :, None] * np.array([hue % 2, hue // 2 % 2, hue // 4 % 2])
    pixels = 255 * (0.6 * ramp + 0.4 * chance.random((size[1], size[0], 3)))
    return Image.fromarray(pixels.astype(np.uint8))


def make_photographs(folder: Path, per_class: int = 24) -> Path:
    """Three tasks of two classes each, below `folder`; among them the awkward files of `awkward`."""
    number = 0
    for task, classes in TASKS.items():
        for label in classes:
            place = folder / task / label
            place.mkdir(parents=True)
            for _ in range(per_class):
                number += 1
                picture(number, hue=number // per_class + 1).save(place / f"photo {number}.jpg", quality=90)
    awkward(folder / "pets 2" / "cat")
    return folder


def awkward(place: Path) -> None:
    """Usable files of every awkward kind, a broken one, an animation, and files that are not images at all."""
    picture(1001, 3).convert("L").save(place / "grey.png")
    picture(1002, 3).convert("CMYK").save(place / "cmyk.jpg")
    picture(1003, 3, (1, 1)).save(place / "one pixel.png")
    picture(1004, 3).convert("RGBA").save(place / "<b>alpha.png")
    picture(1005, 3).convert("P").save(place / "palette.gif")
    Image.fromarray((np.random.default_rng(0).random((20, 30)) * 65535).astype(np.uint16)).save(place / "sixteen bits.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by the camera
    picture(1006, 3, (60, 20)).save(place / "turned.JPG", exif=exif)
    picture(1007, 3, (600, 12)).save(place / "panorama.png")
    whole = io.BytesIO()
    picture(1008, 3).save(whole, "JPEG")
    (place / "broken 'file'.jpg").write_bytes(whole.getvalue()[:200])
    frames = [picture(1010 + frame, 3) for frame in range(3)]
    frames[0].save(place / "moving.gif", save_all=True, append_images=frames[1:])
    (place / ".hidden.jpg").write_bytes(b"")
    (place / "Thumbs.db").write_bytes(b"not an image")
