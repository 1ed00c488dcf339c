"""Names of files and folders: in which order they stand, and how they are shown."""

import re
import unicodedata


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key by which "img2" comes before "img10"."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple((0, int(piece), "") if number % 2 else (1, 0, piece) for number, piece in enumerate(pieces) if piece), name


def shown(name: str) -> str:
    """A file's name for one line of text: what cannot be printed becomes a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def class_name(folder: str) -> str | None:
    """The class that a folder stands for, its letters composed as usual (systems differ); None where it cannot be printed."""
    name = unicodedata.normalize("NFC", folder)
    return name if name.isprintable() and name.strip() else None
