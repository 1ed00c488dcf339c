"""Numbers and names in words, for every part of the library."""

import re


def duration(seconds: float) -> str:
    """Write a time: "4 s", "2 min 05 s", "3 h 07 min"."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, thing: str) -> str:
    """Write a count: "1 class", "10 classes", "1,200 images"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "es" if thing.endswith("s") else "s")


def file_name(text: str, otherwise: str) -> str:
    """Turn text that may hold anything into one part of a path; `otherwise` where nothing is left of it."""
    return re.sub(r"[^\w.-]+", "-", text).strip(".-") or otherwise
