"""Sources of a folder of one's own."""

import pytest

from lifelong.data.sources import Sources


@pytest.fixture
def sources(tmp_path) -> Sources:
    return Sources(tmp_path / "data", cache=tmp_path / "cache")
