"""Figures and observers of one's own: examples keep their contracts, and one that fails does not cost the run."""

import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest

import lifelong
from lifelong.cli import main
from lifelong.errors import ConformanceError, LifelongError
from lifelong.report.gallery import FIGURES, made_summary
from lifelong.report.html import write_report
from tests.sockets.examples import SMALL, example


def test_a_figure_of_ones_own(tmp_path):
    example("new_figure")
    lifelong.check_figure("worth")
    lifelong.run(SMALL, out=tmp_path / "run", preset="quick", method="finetune", epochs=1, init_channels=2, device="cpu")
    assert (tmp_path / "run" / "figures" / "worth.png").stat().st_size > 1000
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="more"' in page
    assert "accuracy of each task against the parameters that it added" in page


def test_a_figure_that_fails_does_not_cost_the_report(tmp_path, caplog):
    lifelong.register_figure("failing", lambda summary: summary["nothing"], "nothing")
    lifelong.register_figure("absent", lambda summary: None, "nothing either")
    assert (tmp_path / "report.html") == write_report(tmp_path, made_summary() | {"preset": "quick"})
    assert "the figure 'failing' cannot be drawn" in caplog.text
    assert 'id="more"' not in (tmp_path / "report.html").read_text()
    with pytest.raises(ConformanceError, match="KeyError"):
        lifelong.check_figure("failing")


@pytest.mark.parametrize("name", FIGURES)
def test_the_figures_of_the_report_keep_their_contract(name):
    lifelong.check_figure(name)


def test_an_observer_of_ones_own(tmp_path, capsys):
    example("new_observer")
    lifelong.check_observer("bell")
    few = {"preset": "quick", "method": "finetune", "epochs": 1, "init_channels": 2, "device": "cpu"}
    lifelong.run(SMALL, out=tmp_path / "run", observe=["bell"], progress=False, **few)
    assert "ding: AP" in capsys.readouterr().out


class Recording(lifelong.Observer):
    heard: ClassVar[list[str]] = []

    def task_started(self, index, name):
        self.heard.append(f"{index} {name}")

    def task_saved(self, run, entries, accuracy):
        self.heard.append(f"{len(entries)} saved, {len(accuracy[-1])} judged, {(run / 'results.jsonl').exists()}")


class Failing(lifelong.Observer):
    def epoch(self, event):
        raise RuntimeError("no network")


def test_any_number_of_observers_hear_and_one_that_fails_does_not_cost_the_run(tmp_path, capsys):
    Recording.heard = []
    lifelong.register_observer("recording", Recording)
    lifelong.register_observer("failing", Failing)
    few = {"preset": "quick", "method": "finetune", "epochs": 1, "init_channels": 2, "device": "cpu"}
    lifelong.run(SMALL, out=tmp_path / "run", observe=["failing", "recording", "failing"], **few)
    assert Recording.heard[:3] == ["0 low", "1 saved, 1 judged, True", "1 high"]
    assert capsys.readouterr().out.count("the observer 'failing' failed, and hears nothing more: RuntimeError: no network") == 1
    with pytest.raises(ConformanceError, match="epoch failed: RuntimeError: no network"):
        lifelong.check_observer("failing")


def test_observers_by_flag(tmp_path, capsys):
    lifelong.register_observer("recording", Recording)
    Recording.heard = []
    small = ["--preset", "quick", "--method", "finetune", "--epochs", "1", "--init-channels", "2", "--device", "cpu"]
    assert main(["run", "--stream", SMALL, *small, "--observe", "recording", "--out", str(tmp_path / "run")]) == 0
    assert len(Recording.heard) >= 6
    assert main(["run", "--stream", SMALL, *small, "--observe", "recordin", "--out", str(tmp_path / "other")]) == 2
    assert "unknown observer 'recordin'; did you mean 'recording'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_whose_package_is_not_there_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LifelongError, match=f"--observe {name} needs the package {name}"):
        lifelong.run(SMALL, out=tmp_path / "run", preset="quick", observe=[name])
    assert not (tmp_path / "run").exists()


def test_services_are_told(monkeypatch):
    """Against stand-ins that take what the packages take."""
    logged = []
    run = SimpleNamespace(log=logged.append, summary={}, finish=lambda: logged.append("finished"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda project, name, config: run))
    lifelong.check_observer("wandb")
    assert {"task": 2, "train/loss": 0.5, "train/accuracy": 0.5} in logged
    assert run.summary == {"ap": 0.75, "af": 0.0, "parameters": 20}
    steps = []
    there = SimpleNamespace(
        start_run=lambda run_name: steps.append(run_name),
        log_metrics=lambda metrics, step=None: steps.append((sorted(metrics), step)),
        end_run=lambda: steps.append("ended"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", there)
    lifelong.check_observer("mlflow")
    assert steps[:2] == ["finetune on made", (["train/accuracy", "train/loss"], 1)]
    assert steps[-1] == "ended"
