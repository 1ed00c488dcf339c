"""Shared fixtures. Declared tensor shapes are executed: every annotated call in the tests is checked by beartype."""

import gc
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from tests import checked
from tests.precision import float64

checked.install()

if not torch.cuda.is_available():
    # Before anything imports Triton: its kernels are then run by an interpreter, which needs no GPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from lifelong.data import sources, vetting  # noqa: E402  (what is imported is to be checked too)
from lifelong.errors import LifelongError  # noqa: E402
from lifelong.report.page import Picture  # noqa: E402
from tests import dots, pretend  # noqa: E402
from tests.shallow import shallow_networks  # noqa: E402, F401  (a fixture)

# Before the first backward pass, which starts a thread for each device that is known then.
REGISTERED = pretend.register()

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what is imported out of the garbage collector's way, which would look at all of it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side: one thread each."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _shapes_checked_anew() -> None:
    """The first calls of every test are checked."""
    checked.CALLS.clear()


@pytest.fixture(autouse=True, scope="session")
def _no_power_cut() -> Iterator[None]:
    """Files are not forced onto the disk, which takes milliseconds each; tests that are about it see the calls all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True, scope="session")
def _dots_for_figures() -> Iterator[None]:
    """The figures of a report, which take a second or two, are dots, except in tests that are about them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Picture, "draw", classmethod(dots.drawing(Picture.draw)))
        yield


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is decoded and computed is kept in a folder of the tests, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIFELONG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _parquet_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parquet files are vetted in this process: another one takes a quarter of a second; `tests/data/test_vetting.py` has it."""

    def here(files: Sequence[Path], image_columns: Sequence[str], label_columns: Sequence[str]) -> None:
        said = next(filter(None, vetting.vet(files, image_columns, label_columns)), "")
        if said:
            raise LifelongError(said)

    monkeypatch.setattr(sources, "read_apart", here)


@pytest.fixture(scope="session")
def pretended() -> None:
    """The pretended device is known to PyTorch, else what stands on it is skipped."""
    if REGISTERED is None:
        pytest.skip(f"PyTorch {torch.__version__} knows no devices that are written in Python")


@pytest.fixture
def accelerator(pretended: None, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device that is not the CPU, on any machine: see `tests/pretend.py`."""
    monkeypatch.setattr(torch, "Generator", pretend.AnyGenerator)
    return torch.device(pretend.NAME)


@pytest.fixture
def in_float64() -> Iterator[None]:
    """The whole test in float64: for trainings that two ways of computing must bring to the same end."""
    with float64():
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real images; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("LIFELONG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no images at {folder}: set LIFELONG_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def weights_file() -> Path:
    """ImageNet weights of the extractor; tests that need them are skipped where they are absent."""
    default = ROOT.parent / "shared" / "weights" / "resnet18-imagenet-to-layer3.safetensors"
    file = Path(os.environ.get("LIFELONG_WEIGHTS", default))
    if not file.is_file():
        pytest.skip(f"no weights at {file}: set LIFELONG_WEIGHTS to run this test")
    return file
