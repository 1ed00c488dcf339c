"""The recorded checksums of the named streams: two people know that they ran the same thing."""

import os
from pathlib import Path

import pytest

from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from lifelong.streams import checksums
from lifelong.streams.build import SpecStream
from lifelong.streams.catalog import open_stream, stream_names
from lifelong.streams.checksums import Checksum

ROOT = Path(__file__).resolve().parents[2]


def test_what_was_recorded(monkeypatch):
    monkeypatch.setattr(checksums, "recorded", lambda: {("s", 0, "data"): "drawn"})
    assert checksums.compare("s", 0, Checksum("data", "drawn")) == "recorded"
    assert checksums.compare("s", 0, Checksum("data", "others")) == "different"
    assert checksums.compare("s", 1, Checksum("data", "drawn")) == "not recorded"
    assert checksums.compare("s", 0, Checksum("other data", "drawn")) == "not recorded"


@pytest.mark.parametrize("name", stream_names())
def test_named_streams(name, tmp_path):
    """Every named stream whose images are here draws at seeds 0 to 2 what is recorded for these data."""
    folder = Path(os.environ.get("LIFELONG_DATA", ROOT.parent / "shared" / "data"))
    for seed in (0, 1, 2):
        stream = open_stream(name, seed, Sources(folder if folder.is_dir() else None, cache=tmp_path))
        assert isinstance(stream, SpecStream)
        try:
            checksum = stream.checksum()
        except LifelongError as error:
            pytest.skip(f"{name}: {error}")
        verdict = checksums.compare(name, seed, checksum)
        row = f"{name},{seed},{checksum.labels},{checksum.draws}"
        if verdict == "not recorded" and not known_data(folder):
            pytest.skip(f"{name}: no row for these data ({row})")
        assert verdict == "recorded", f"the row would be: {row}"


def known_data(folder: Path) -> bool:
    """Whether these are the reduced copies that rows were recorded for."""
    return not folder.is_dir() or folder == ROOT.parent / "shared" / "data"
