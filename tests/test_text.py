"""Text from data where it leaves: on a terminal it does nothing but say something, in a spreadsheet it computes nothing."""

import csv
import io
import logging

import pytest
from rich.console import Console

from lifelong.cli import main
from lifelong.errors import DivergedError, LifelongError, MissingDataError
from lifelong.experiment.progress import ConsoleProgress
from lifelong.report.exports import comma_separated, no_formula
from lifelong.training.stages import Epoch
from tests.report.made import record, run

HOSTILE = "birds\x1b[2J\x1b]0;title\x07\r\n\x9b31m\u202efake\x00\u2028line\udcff"


def harmless(text: str) -> bool:
    """Whether a terminal only shows it: no control character, no line end but the last, nothing that turns the writing around."""
    return all(letter.isprintable() for letter in text.removesuffix("\n"))


@pytest.mark.parametrize(
    "error", [LifelongError(HOSTILE), MissingDataError(HOSTILE, HOSTILE), DivergedError(HOSTILE, 1)], ids=lambda error: type(error).__name__
)
def test_an_error_line(error):
    assert harmless(str(error))
    assert "birds" in str(error)
    assert "fake" in str(error)


def test_an_error_line_of_a_command(capsys):
    assert main(["streams", f"folder:{HOSTILE.replace(chr(0), '')}"]) == 2
    said = capsys.readouterr().err
    assert harmless(said)
    assert said.startswith("lifelong: ")


def test_spaces_in_names_stay():
    assert str(LifelongError("no file 'two  spaces  日本語'")) == "no file 'two  spaces  日本語'"


def test_lines_of_progress():
    screen = io.StringIO()
    progress = ConsoleProgress(Console(file=screen, force_terminal=False, width=400))
    with progress:
        progress.run_started(HOSTILE, "par", 2, 0)
        progress.task_started(0, HOSTILE)
        progress.candidate(0, 1, {"backbone": HOSTILE})
        progress.phase(HOSTILE)
        progress.epoch(Epoch(HOSTILE, 1, 1, 0.5, 0.5))
        progress.note(HOSTILE)
        progress.task_finished(0, record(name=HOSTILE, decision=HOSTILE, expert=0, reason=HOSTILE), [0.5])
        progress.beside(HOSTILE).task_finished(0, record(name=HOSTILE), [0.5])
        progress.run_finished(run(stream=HOSTILE))
    lines = screen.getvalue().split("\n")
    assert len(lines) >= 8
    assert all(harmless(line) for line in lines)


def test_bars_of_a_terminal():
    shown = []

    class Bars:
        def update(self, bar: str, **fields: object) -> None:
            shown.extend(value for value in fields.values() if isinstance(value, str))

        def stop(self) -> None: ...

    progress = ConsoleProgress(Console(file=io.StringIO()))
    progress._live, progress._bars = Bars(), {"run": "run", "phase": "phase"}
    progress.task_started(0, HOSTILE)
    progress.phase(HOSTILE)
    progress.close()
    assert len(shown) > 3
    assert all(map(harmless, shown))


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n=cmd|' /C calc'!A0", "\uff1d1+1", "-", "-x", '=HYPERLINK("http://x")'],
)
def test_text_that_a_spreadsheet_would_compute(cell):
    (read,) = list(csv.reader(io.StringIO(comma_separated([cell], [])), lineterminator="\n"))
    assert read == [f"'{cell}".replace("\r", "\n")]
    assert no_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-0.01", "+3", "-1e-5", "0.5", "bird", "a=b", "", None, -0.01, 3, True, "'=1", "–"])
def test_numbers_and_other_text_stay(cell):
    assert no_formula(cell) == cell


def test_a_warning_names_a_file_harmlessly(caplog):
    from lifelong.data.given import unusable_line

    with caplog.at_level(logging.WARNING):
        logging.getLogger("lifelong").warning("%s", unusable_line([(HOSTILE, "broken")], 1))
    assert harmless(caplog.messages[0])
