"""What an unknown flag was meant to be."""

import pytest

from lifelong.cli.commands import app
from lifelong.cli.main import main
from lifelong.cli.meant import OTHER_NAMES, meant_flag


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--learning-rate", "--lr"),
        ("--learning_rate=0.1", "--lr"),
        ("--num_epochs", "--epochs"),
        ("--epoch", "--epochs"),
        ("--GPU", "--device"),
        ("--wd", "--weight-decay"),
        ("--xyzzy", None),
    ],
)
def test_a_flag_of_another_name(given: str, meant: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--stream", "digits", given, "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"did you mean {meant}?" if meant else "see: lifelong run --help")


def test_a_flag_that_the_command_lacks_is_not_proposed() -> None:
    assert meant_flag("--learning-rate", ["--routing-temperature", "--out"]) is None


def test_every_flag_that_is_proposed_is_one() -> None:
    known = set()
    for name in ("run", "compare", "predict"):
        collection = app[name].assemble_argument_collection()
        known |= {flag for argument in collection for flag in argument.names}
    assert set(OTHER_NAMES) <= known
