"""Sort and print the names of files and folders."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a sort key that puts "img2" before "img10"."""
    pieces = re.split(r"([0-9]+)", name)
    # A number by its length and its digits: one of five thousand digits is not worth counting.
    digits = (piece.lstrip("0") if number % 2 else "" for number, piece in enumerate(pieces))
    keys = zip(pieces, digits, strict=True)
    return tuple((0, len(own), own) if number % 2 else (1, 0, piece) for number, (piece, own) in enumerate(keys) if piece), name


def shown(name: str) -> str:
    """Make a file's name printable on one line: other characters become question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def class_name(folder: str) -> str | None:
    """Return the class name of a folder in Unicode NFC (systems differ); None if it cannot be printed."""
    name = unicodedata.normalize("NFC", folder)
    return name if name.isprintable() and name.strip() else None


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Make names unique by numbering repeated ones: two cranes, a bird and a machine, are "crane" and "crane (2)"."""
    taken, result = set(names), []
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        called, number = name, seen[name]
        while number > 1 and called in taken:
            called, number = f"{name} ({number})", number + 1
        taken.add(called)
        result.append(called)
    return tuple(result)
