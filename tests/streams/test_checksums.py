"""The recorded checksums of the named streams: two people know that they ran the same thing."""

import os
from pathlib import Path

import pytest

from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from lifelong.streams import checksums
from lifelong.streams.build import SpecStream
from lifelong.streams.checksums import Checksum
from lifelong.streams.named_streams import open_stream, stream_names
from tests.streams.full_sources import FullSources

ROOT = Path(__file__).resolve().parents[2]


def test_what_was_recorded(monkeypatch):
    monkeypatch.setattr(checksums, "recorded", lambda: {("s", 0, "data"): "drawn"})
    assert checksums.compare("s", 0, Checksum("data", "drawn")) == "recorded"
    assert checksums.compare("s", 0, Checksum("data", "others")) == "different"
    assert checksums.compare("s", 1, Checksum("data", "drawn")) == "not recorded"
    assert checksums.compare("s", 0, Checksum("other data", "drawn")) == "not recorded"


@pytest.mark.parametrize("name", stream_names())
def test_named_streams_of_full_size(name, tmp_path):
    """Every named stream draws at seeds 0 to 2 what is recorded for sources of the official sizes; they hold labels only."""
    for seed in (0, 1, 2):
        check(name, seed, FullSources(cache=tmp_path))


@pytest.mark.parametrize("name", stream_names())
def test_named_streams_of_real_images(name, kept):
    """And what is recorded for the reduced copies of real images, where their sources are here."""
    folder = Path(os.environ.get("LIFELONG_DATA", LOCAL))
    for seed in (0, 1, 2):
        stream = open_stream(name, seed, Sources(folder if folder.is_dir() else None, cache=kept))
        try:
            stream.describe()
        except LifelongError as error:
            pytest.skip(f"{name}: {error}")
        if folder.is_dir() and folder.resolve() != LOCAL.resolve():
            pytest.skip(f"{name}: rows are kept for the reduced copies only")
        check(name, seed, Sources(folder if folder.is_dir() else None, cache=kept))


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """One cache for all streams: the sources' files are hashed once."""
    return tmp_path_factory.mktemp("cache")


LOCAL = ROOT.parent / "shared" / "data"


def check(name: str, seed: int, sources: Sources) -> None:
    stream = open_stream(name, seed, sources)
    assert isinstance(stream, SpecStream)
    checksum = stream.checksum()
    assert checksums.compare(name, seed, checksum) == "recorded", f"the row is {name},{seed},{checksum.labels},{checksum.draws}"
