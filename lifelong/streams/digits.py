"""The embedded stream: eight small tasks from real handwritten digits; `digits.toml` says which."""

from pathlib import Path

from lifelong.streams.reading import read_stream
from lifelong.streams.spec import StreamSpec


def digits(seed: int) -> StreamSpec:
    """Specify the stream `digits`; its seed decides which images are drawn.

    Args:
        seed: not used here: classes and their order are the same for every seed.
    """
    return read_stream(Path(__file__).with_name("digits.toml"))
