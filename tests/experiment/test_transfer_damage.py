"""What a measurement of transfer has kept, damaged, mixed up or made up: computed again with a note, or one line."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lifelong
from lifelong.errors import LifelongError
from lifelong.records.transfer import TransferRecord
from lifelong.storage import load_tree
from tests.experiment.damage import Notes, flip
from tests.resaved import resave

STREAM = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"
ALONE, OTHER = (f"seed0/checkpoint/stages/alone-00{number}.safetensors" for number in (0, 1))
PAIR = "seed0/checkpoint/stages/share-000-001.safetensors"


def measured(out: Path) -> tuple[TransferRecord, list[str]]:
    listener = Notes()
    words = {"preset": "quick", "epochs": 1, "init_channels": 2, "variant": "fixed", "threads": 1, "device": "cpu"}
    return lifelong.transfer(STREAM, strategies=["share"], measures=["prototype-kl"], out=out, progress=listener, **words), listener.said


def certain(result: TransferRecord) -> list[Any]:
    (seed,) = result.seeds
    return [[one.accuracy for one in seed.alone], [(pair.source, pair.target, pair.gain, pair.change) for pair in seed.pairs]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer") / "whole"
    measured(folder)
    return folder


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def forge(out: Path, file: str, change: Callable[[Any], Any]) -> None:
    resave(out / "seed0", out / file, change(load_tree(out / file)))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda out: flip(out / PAIR, 999),
    "another's": lambda out: shutil.copy(out / OTHER, out / ALONE),
    "a number": lambda out: forge(out, ALONE, lambda kept: 3),
    "nothing found": lambda out: forge(out, ALONE, lambda kept: {"state": kept["state"]}),
    "no state": lambda out: forge(out, ALONE, lambda kept: kept | {"state": None}),
    "an accuracy in words": lambda out: forge(out, ALONE, lambda kept: kept | {"found": kept["found"] | {"accuracy": "good"}}),
    "an accuracy above 1": lambda out: forge(out, PAIR, lambda kept: kept | {"accuracy": 7.0}),
    "an accuracy that is no number": lambda out: forge(out, PAIR, lambda kept: kept | {"accuracy": float("nan")}),
    "a pair of nothing": lambda out: forge(out, PAIR, lambda kept: {}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_computed_again(whole: Path, out: Path, damage: str) -> None:
    DAMAGE[damage](out)
    result, said = measured(out)
    assert certain(result) == certain(measured(whole)[0])
    (note,) = said
    assert "is computed again" in note
    assert note in result.notes


def test_a_state_that_no_model_has_is_one_line(out: Path) -> None:
    forge(out, ALONE, lambda kept: kept | {"state": {}})
    (out / PAIR).unlink()
    with pytest.raises(LifelongError, match=r"alone-000\.safetensors holds no state of the method 'par'"):
        measured(out)


def test_verify_knows_the_folder_of_a_seed(whole: Path, out: Path) -> None:
    with pytest.raises(LifelongError, match=r"holds no run; its folders do: give one of them, such as .*seed0"):
        lifelong.verify(out)
    found = lifelong.verify(out / "seed0")
    assert found.sound
    assert {each.condition for each in found.files} == {"good"}
    shutil.copy(out / OTHER, out / ALONE)
    config = out / "seed0" / "config.toml"
    config.write_text(config.read_text().replace("momentum = 0.9", "momentum = 0.1"))
    assert {each.file for each in lifelong.verify(out / "seed0").files if each.condition == "damaged"} == {
        "config.toml",
        ALONE.removeprefix("seed0/"),
    }
    assert lifelong.verify(out / "seed0", repair=True).sound
    assert config.read_text() == (whole / "seed0" / "config.toml").read_text()


def test_an_edited_configuration_is_rewritten_with_a_note(whole: Path, out: Path) -> None:
    config = out / "seed0" / "config.toml"
    config.write_text(config.read_text().replace("momentum = 0.9", "momentum = 0.1"))
    result, _ = measured(out)
    assert any(note.startswith("config.toml was damaged or changed") for note in result.notes)
    assert config.read_text() == (whole / "seed0" / "config.toml").read_text()
