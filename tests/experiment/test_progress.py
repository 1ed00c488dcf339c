import io

import pytest
from rich.console import Console

from lifelong.experiment.counting import LINE_EVERY, along, counted
from lifelong.experiment.observer import Observer
from lifelong.experiment.progress import ConsoleProgress, Heartbeat
from lifelong.training.stages import Epoch
from lifelong.words import duration
from tests.report.made import record, run


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def play(progress, clock, *, seconds=1.0, epochs=3):
    """Two tasks: the first is searched and trained, the second is trained."""
    with progress:
        progress.run_started("digits", "par", 2, 0)
        progress.note("relatedness by pixels")
        for index, (name, phases) in enumerate([("[bold]one[/bold]", ["distances", "search", "train"]), ("two", ["train"])]):
            progress.task_started(index, name)
            for phase in phases:
                progress.phase(phase)
                for epoch in range(1, epochs + 1):
                    clock.now += seconds
                    if phase != "distances":
                        progress.epoch(Epoch(phase, epoch, epochs, 0.5 / epoch, 0.8))
            progress.phase("evaluate")
            told = record(name=name, decision="search", expert=0, reason="nothing is near")
            progress.task_finished(index, told, [0.75, 0.9][: index + 1])
        progress.run_finished(run(ap=0.8))


def plain(clock, **options):
    file = io.StringIO()
    play(ConsoleProgress(Console(file=file, width=40), clock=clock), clock, **options)
    return file.getvalue()


def test_the_base_class_is_silent(clock, capsys):
    play(Observer(), clock)
    assert capsys.readouterr() == ("", "")


def test_lines_where_there_is_no_terminal(clock):
    assert plain(clock).splitlines() == [
        "par on digits: 2 tasks",
        "note: relatedness by pixels",
        "task 1 of 2: [bold]one[/bold]",
        "  search: epoch 3 of 3, loss 0.167, accuracy 0.800",
        "  train: epoch 3 of 3, loss 0.167, accuracy 0.800",
        "task 1 of 2 done: [bold]one[/bold], search, expert 0, accuracy 0.750, 9 s, about 9 s left for 1 more",
        "  nothing is near",
        "task 2 of 2: two",
        "  train: epoch 3 of 3, loss 0.167, accuracy 0.800",
        "task 2 of 2 done: two, search, expert 0, accuracy 0.900, 3 s",
        "  nothing is near",
    ]


def test_what_trains_nothing_shows_how_far_it_is(clock):
    file = io.StringIO()
    progress = ConsoleProgress(Console(file=file, width=80), clock=clock)
    with progress:
        progress.run_started("digits", "ewc", 1, 0)
        progress.task_started(0, "one")
        progress.phase("train")
        progress.epoch(Epoch("importance", 64, 64, float("nan"), float("nan")))
        progress.phase("evaluate")
    assert "  importance: 64 of 64" in file.getvalue().splitlines()


def test_what_has_no_accuracy_shows_none(clock):
    file = io.StringIO()
    progress = ConsoleProgress(Console(file=file, width=80), clock=clock)
    with progress:
        progress.run_started("digits", "expert-gate", 1, 0)
        progress.task_started(0, "one")
        progress.phase("auto-encoder")
        progress.epoch(Epoch("auto-encoder", 3, 3, 0.5, float("nan")))
        progress.phase("evaluate")
    assert "  auto-encoder: epoch 3 of 3, loss 0.500" in file.getvalue().splitlines()


def test_within_a_phase_there_is_a_line_at_most_every_ten_seconds(clock):
    lines = [line for line in plain(clock, seconds=3.0, epochs=10).splitlines() if line.startswith("  train")]
    # After 12 and 24 of 30 seconds, and at the end; both tasks train.
    assert [line.split(",")[0] for line in lines] == ["  train: epoch 4 of 10", "  train: epoch 8 of 10", "  train: epoch 10 of 10"] * 2
    assert lines[0].endswith("18 s left")
    assert lines[1].endswith("6 s left")
    assert LINE_EVERY == 10


def test_no_control_codes_without_a_terminal(clock):
    assert "\x1b" not in plain(clock)


def test_a_stage_that_changes_within_a_phase_is_reported_apart(clock):
    file = io.StringIO()
    progress = ConsoleProgress(Console(file=file), clock=clock)
    progress.run_started("s", "m", 1, 0)
    progress.task_started(0, "a")
    progress.phase("train")
    for stage in ("first", "second"):
        for epoch in (1, 2):
            clock.now += 1
            progress.epoch(Epoch(stage, epoch, 2, 1.0, 0.5))
    progress.task_finished(0, record(name="a"), [0.5])
    assert [line.strip().split(":")[0] for line in file.getvalue().splitlines()[2:4]] == ["first", "second"]


def test_going_on_says_where(clock):
    file = io.StringIO()
    progress = ConsoleProgress(Console(file=file), clock=clock)
    progress.run_started("digits", "lwf", 5, 2)
    assert file.getvalue() == "lwf on digits: 5 tasks, going on after task 2\n"


def test_a_run_that_was_finished_before_says_so(clock):
    file = io.StringIO()
    progress = ConsoleProgress(Console(file=file), clock=clock)
    for _ in range(2):
        progress.run_finished(run(method="lwf", stream="digits"))
    assert file.getvalue() == "lwf on digits: finished before, nothing to do\n" * 2


def test_on_a_terminal_there_are_bars_and_they_go_away(clock):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, color_system=None)
    play(ConsoleProgress(console, clock=clock), clock)
    screen = file.getvalue()
    assert "task 1 of 2 done: [bold]one[/bold], search, expert 0, accuracy 0.750, 9 s" in screen
    assert screen.endswith("\x1b[?25h\r\x1b[1A\x1b[2K\x1b[1A\x1b[2K")  # the cursor is back, and both bars are erased


def test_on_a_terminal_the_bars_say_task_epoch_loss_and_time_left(clock):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, color_system=None)
    progress = ConsoleProgress(console, clock=clock)
    progress.run_started("digits", "par", 3, 0)
    progress.task_started(0, "one")
    clock.now = 60.0
    progress.task_finished(0, record(name="one"), [0.9])
    progress.task_started(1, "[red]two")
    progress.phase("train")
    clock.now = 70.0
    progress.epoch(Epoch("train", 1, 4, 0.25, 0.5))
    progress.close()  # draws the bars a last time
    run, phase = [line for line in file.getvalue().split("\n") if "━" in line][-2:]
    assert "task 2 of 3: [red]two" in run
    assert "about 1 min 50 s left" in run  # 50 s of this task, 60 s of the last
    assert "train" in phase
    assert "epoch 1 of 4, loss 0.250, accuracy 0.500, 30 s left" in phase


def test_an_error_leaves_no_live_bars(clock):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True)
    progress = ConsoleProgress(console, clock=clock)

    def interrupted():
        with progress:
            progress.run_started("digits", "par", 2, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.getvalue().rstrip().endswith("\x1b[2K")


def test_a_long_evaluation_shows_how_far_it_is_and_a_short_one_nothing(clock):
    file = io.StringIO()
    progress = ConsoleProgress(Console(file=file, width=80), clock=clock)
    progress.run_started("digits", "lwf", 1, 0)
    progress.task_started(0, "one")
    for seconds in (1.0, 6.0):
        progress.phase("evaluate")
        for done in (1000, 2000, 3000, 4000):
            clock.now += seconds
            progress.advance(done, 4000)
    assert file.getvalue().splitlines()[2:] == ["  evaluate: 2000 of 4000 images, 12 s left"]


def test_on_a_terminal_the_bar_of_an_evaluation_fills(clock):
    file = io.StringIO()
    progress = ConsoleProgress(Console(file=file, force_terminal=True, width=120, color_system=None), clock=clock)
    progress.run_started("digits", "par", 1, 0)
    progress.task_started(0, "one")
    progress.phase("evaluate")
    clock.now = 5.0
    progress.advance(100, 400)
    progress.close()
    (bar,) = [line for line in file.getvalue().split("\n") if "━" in line][-1:]
    assert "evaluate" in bar
    assert "100 of 400 images, 15 s left" in bar


def test_runs_at_once_say_a_line_now_and_then_within_a_task(clock):
    file = io.StringIO()
    lines = ConsoleProgress(Console(file=file, width=80), clock=clock).beside("lwf, seed 1")
    lines.run_started("digits", "lwf", 3, 0)
    for index, name in enumerate(("one", "two")):
        lines.task_started(index, name)
        lines.phase("train")
        for epoch in (1, 2, 3):
            clock.now += 6.0
            lines.epoch(Epoch("train", epoch, 3, 0.5, 0.25))
        lines.task_finished(index, record(name=name), [0.75])
    assert file.getvalue().splitlines() == [
        "lwf, seed 1: 3 tasks",
        "lwf, seed 1: task 1 of 3, train: epoch 2 of 3, loss 0.500, accuracy 0.250, 6 s left",
        "lwf, seed 1: task 1 of 3 done: one, accuracy 0.750",
        "lwf, seed 1: task 2 of 3, train: epoch 2 of 3, loss 0.500, accuracy 0.250, 6 s left; about 24 s left of this run",
        "lwf, seed 1: task 2 of 3 done: two, accuracy 0.750",
    ]


def test_a_run_that_says_little_says_where_it_goes_on(clock):
    said = []
    beat = Heartbeat(said.append, "  ", 30.0, clock)
    beat.run_started("digits", "lwf", 5, 2)
    beat.task_started(2, "three")
    clock.now = 29.0
    beat.phase("train")
    clock.now = 31.0
    beat.phase("evaluate")
    assert said == ["  going on after task 2 of 5", "  task 3 of 5, evaluate"]


def test_things_are_counted_on_stderr(clock, capsys):
    with counted(4, "images", clock) as tell:
        for done in (0.0, 0.5, 1.5, 2.5, 4.0):
            tell(done)
            clock.now += 6.0
    assert capsys.readouterr() == ("", "1 of 4 images, 20 s left\n")
    assert list(along("abcd", 4)) == list("abcd")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125.0, "2 min 05 s"), (3600.0, "1 h 00 min"), (11221.0, "3 h 07 min")],
)
def test_times_in_words(seconds, text):
    assert duration(seconds) == text
