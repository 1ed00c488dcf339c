"""Engines of one's own: the example keeps its contract, what does not is found out."""

import pytest

import lifelong
from lifelong.cli import main
from lifelong.errors import ConformanceError, LifelongError
from lifelong.experiment.summaries import read_summary
from tests.sockets.examples import SMALL, example


def test_an_engine_of_ones_own():
    """Each run by a command, as a batch system starts it: a job is plain data, and its outcome a file."""
    example("new_engine")
    lifelong.check_engine("commands")


def test_the_engine_of_this_machine_keeps_its_contract():
    lifelong.check_engine("local")


class InTurn:
    def run(self, jobs, workers, begin):
        for position, job in enumerate(jobs):
            yield position, lifelong.perform(job, begin(position))


class Forgets(InTurn):
    def run(self, jobs, workers, begin):
        yield from list(super().run(jobs, workers, begin))[:-1]


class Stops(InTurn):
    def run(self, jobs, workers, begin):
        for position, outcome in super().run(jobs, workers, begin):
            if outcome.summary is None:
                raise LifelongError(outcome.failure)
            yield position, outcome


class Invents(InTurn):
    def run(self, jobs, workers, begin):
        for position, outcome in super().run(jobs, workers, begin):
            yield position, lifelong.RunOutcome(outcome.summary.model_copy(update={"parameters": 0})) if outcome.summary else outcome


class Silent(InTurn):
    def run(self, jobs, workers, begin):
        return super().run(jobs, workers, lambda position: lifelong.Observer())


class Empty(InTurn):
    def run(self, jobs, workers, begin):
        return iter(())


class Words(InTurn):
    def run(self, jobs, workers, begin):
        yield 0, "done"


@pytest.mark.parametrize(
    ("engine", "line"), [(Empty, "ended without the outcome of 1 of 1 jobs"), (Words, "gave \\(0, 'done'\\); it must give the position")]
)
def test_a_sweep_names_an_engine_that_gives_no_outcomes(engine, line, tmp_path):
    name = f"gives-{engine.__name__.lower()}"
    lifelong.register_engine(name, engine)
    with pytest.raises(LifelongError, match=f"engine '{name}': {line}"):
        lifelong.compare("digits?tasks=1", ["finetune"], preset="quick", engine=name, out=tmp_path / "runs")


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        (Forgets, "has one outcome once: \\[0, 1\\]"),
        (Stops, "is not empty and holds no run"),
        (Invents, "the summary of a job is not that of its folder"),
        (Silent, "begins once: \\[\\]"),
    ],
)
def test_an_engine_that_breaks_its_contract(engine, line):
    lifelong.register_engine("broken", engine)
    with pytest.raises((ConformanceError, LifelongError), match=line):
        lifelong.check_engine("broken")


def test_an_engine_by_flag(tmp_path, capsys):
    lifelong.register_engine("in-turn", InTurn)
    words = [
        "compare",
        "--stream",
        SMALL,
        "--methods",
        "finetune",
        "--seeds",
        "0,1",
        "--preset",
        "quick",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*words, "--engine", "in-turn", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").exists()
    tuned = ["tune", "--grid", "lr=0.05,0.1", "--method", "finetune", *words[1:3], *words[-6:]]
    assert main([*tuned, "--engine", "in-turn", "--out", str(tmp_path / "tuned")]) == 0
    assert main([*tuned, "--out", str(tmp_path / "as-usual")]) == 0
    chosen = [[task.tuning.chosen for task in read_summary(tmp_path / name).tasks if task.tuning] for name in ("tuned", "as-usual")]
    assert chosen[0] == chosen[1] != []
    for command in (words, tuned, ["reproduce", "table3", "--scale", "tiny"]):
        assert main([*command, "--engine", "in-tern", "--out", str(tmp_path / "other")]) == 2
        assert "unknown engine 'in-tern'; did you mean 'in-turn'?" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    with pytest.raises(LifelongError, match="give a class with the method run"):
        lifelong.register_engine("mine", InTurn())
