"""Made-up results for the tests of the report."""

import pytest

from tests.report import made


@pytest.fixture
def make_summary():
    return made.summary


@pytest.fixture
def make_distances():
    return made.distances


@pytest.fixture
def nasty() -> list[str]:
    return list(made.NASTY)
