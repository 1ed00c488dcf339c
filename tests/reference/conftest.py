"""The page's numbers are held from both sides: a result may not differ by more, nor by much less."""

from collections.abc import Generator

import pytest

from tests.reference.recordings import FOUND, too_large


@pytest.fixture(autouse=True)
def _page_says_what_was_found() -> Generator[None]:
    FOUND.clear()
    yield
    assert not too_large(FOUND), "docs/fidelity.md says much more than was found"
