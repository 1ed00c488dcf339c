"""What a test registers is known only in it."""

import pytest

from lifelong.report.gallery import FIGURES
from lifelong.settings.sockets import ALLOCATIONS, BACKBONES, DECISIONS, ENGINES, EXTRACTORS, MEASURES, OBSERVERS, REGULARIZERS

SOCKETS = (MEASURES, DECISIONS, REGULARIZERS, ALLOCATIONS, EXTRACTORS, BACKBONES, OBSERVERS, FIGURES, ENGINES)


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers is known only in it."""
    before = {registry.kind: dict(registry._entries) for registry in SOCKETS}
    yield
    for registry in SOCKETS:
        registry._entries = before[registry.kind]
