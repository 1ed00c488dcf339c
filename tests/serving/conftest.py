import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lifelong.experiment.summaries import read_summary
from lifelong.report.html import write_report
from lifelong.serving.application import Service
from tests.learned import small_run
from tests.serving.served import FREE, HERE, asked


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three tasks of digits, with its report; not to be changed."""
    run = small_run(tmp_path_factory.mktemp("served"))
    write_report(run, read_summary(run))
    return run


@pytest.fixture
def run(learned: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    shutil.copy(learned.parent / "three.toml", tmp_path)
    return shutil.copytree(learned, tmp_path / "run")


@pytest.fixture(scope="module")
def client(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a copy that the tests of a module share; none of them learns a task."""
    copy = shutil.copytree(learned, tmp_path_factory.mktemp("shared") / "run")
    with asked(Service(copy, HERE, FREE)) as client:
        yield client
