"""The runner: what it writes, what it refuses, what it never lets happen."""

import gc
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from lifelong.data.task import RetiredTaskError, Task
from lifelong.errors import LifelongError
from lifelong.experiment.compare import compare, read_summaries
from lifelong.experiment.distances import distances
from lifelong.experiment.learning import retire
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import read_summary
from lifelong.experiment.run import run
from lifelong.methods.finetune import Finetune
from lifelong.methods.registry import METHODS, MethodEntry, make_method
from lifelong.records.base import plain
from lifelong.report.html import write_report
from lifelong.report.wording import sentence
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.run import Environment
from lifelong.storage import load_tree
from lifelong.training.examples import evaluate
from tests.experiment.small_runs import config
from tests.made import made_task
from tests.resaved import change_state

HERE = Environment(device="cpu")
ROOT = Path(__file__).resolve().parents[2]


def test_a_run_directory_holds_the_whole_result(stream: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = run(config(stream, "par"), out, HERE)
    assert json.loads((out / "summary.json").read_text()) == summary
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["accuracy"] for line in lines] == summary["accuracy"]
    assert [len(row) for row in summary["accuracy"]] == [1, 2, 3]
    assert summary["ap"] == pytest.approx(sum(summary["accuracy"][-1]) / 3)
    assert summary["complete"]
    for task, now in zip(summary["tasks"], summary["accuracy"][-1], strict=True):
        counts = task["judged"]["confusion"]
        assert sum(map(sum, counts)) == task["test"]
        assert sum(row[index] for index, row in enumerate(counts)) / task["test"] == now
        assert task["judged"]["recall"] == pytest.approx([row[index] / sum(row) for index, row in enumerate(counts)])
    assert summary["weighted_accuracy"] == pytest.approx(
        sum(now * task["test"] for task, now in zip(summary["tasks"], summary["accuracy"][-1], strict=True))
        / sum(task["test"] for task in summary["tasks"])
    )
    assert summary["bwt"] == pytest.approx(1.5 * summary["af"])  # three tasks, of which AF counts the last as 0
    assert summary["forgetting"] >= -summary["bwt"] - 1e-9
    assert [task["decision"] for task in summary["tasks"]] == ["search", "search", "reuse-expert"]
    assert [len(task["divergences"]) for task in summary["tasks"]] == [0, 1, 2]
    assert summary["parameters"] == sum(task["parameters_added"] for task in summary["tasks"])
    assert summary["memory"]["prototypes"] > 0
    assert summary["seconds"] == pytest.approx(sum(task["seconds"] for task in summary["tasks"]))
    assert {"search", "train", "distances", "evaluate"} <= summary["seconds_by_phase"].keys()
    assert 'method = "par"' in (out / "config.toml").read_text()
    assert not (out / "checkpoint" / "stages").exists() or not list((out / "checkpoint" / "stages").iterdir())


def test_a_search_that_decides_nothing_is_said_once_and_recorded(stream: str, tmp_path: Path) -> None:
    """Two searches of two epochs: one note in the log and in the summary, and each task's own count."""

    class Listener(Observer):
        said: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.said.append(text)

    summary = run(config(stream, "par"), tmp_path / "run", HERE, Listener())
    told = [note for note in summary["notes"] if note.startswith("search_epochs = 2: ")]
    assert len(told) == 1
    assert [text for text in Listener.said if text in told] == told
    assert [(task["edges"], task["undecided_edges"]) for task in summary["tasks"]] == [(16, 16), (16, 16), (0, 0)]
    assert "16 of its 16 edges undecided" in summary["tasks"][0]["reason"]
    assert "2 cells searched (32 of 32 edges undecided)" in sentence(summary)


def test_a_run_of_a_version_without_these_numbers_goes_on(stream: str, tmp_path: Path) -> None:
    """Stopped after a task, with the records as they were: what is judged again has its classes, the numbers of the whole are there."""

    class Stop(Observer):
        def task_finished(self, index, record, accuracy) -> None:
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config(stream, "independent"), out, HERE, Stop())

    def earlier(state) -> None:
        del state["summary"]
        for entry in state["entries"]:
            for key in ("judged", "notes", "edges", "undecided_edges", "made_with"):
                del entry[key]

    change_state(out, earlier)
    summary = run(config(stream, "independent"), out, HERE)
    assert ["judged" in task for task in summary["tasks"]] == [False, True, True]  # Independent's first task is as it was
    assert (summary["bwt"], summary["forgetting"]) == (0.0, 0.0)
    write_report(out, summary)
    assert "classes, one by one" in (out / "report.html").read_text()


def test_methods_that_decide_nothing_say_null(stream: str, tmp_path: Path) -> None:
    summary = run(config(stream), tmp_path / "run", HERE)
    assert [task["decision"] for task in summary["tasks"]] == [None, None, None]
    assert summary["memory"] == {}


def test_a_finished_run_is_only_read(stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    summary = run(config(stream), out, HERE)
    monkeypatch.setattr(Finetune, "learn", lambda *a: pytest.fail("learned again"))
    before = (out / "checkpoint/run.safetensors").stat().st_mtime_ns
    assert run(config(stream), out, HERE) == summary
    assert (out / "checkpoint/run.safetensors").stat().st_mtime_ns == before


def test_accuracies_kept_for_unchanged_tasks_are_right(stream: str, tmp_path: Path) -> None:
    """What is not judged again would come out the same: Independent's row, recomputed from the saved networks."""
    from lifelong.data.sources import Sources
    from lifelong.streams.named_streams import open_stream

    out = tmp_path / "run"
    summary = run(config(stream, "independent"), out, HERE)
    method = make_method("independent", config(stream, "independent").settings)
    method.load_state_dict(load_tree(out / "checkpoint/run.safetensors")["method"])
    tasks = open_stream(stream, 0, Sources())
    torch.set_num_threads(1)
    fresh = [evaluate(lambda images, i=index: method.logits(images, i), tasks[index].test) for index in range(3)]
    assert fresh == summary["accuracy"][-1]
    assert summary["af"] == 0.0


def test_a_run_that_is_continued_elsewhere_says_so(stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after its first task, and continued with another number of threads and by another processor."""
    from lifelong.experiment import machine

    class Stop(Observer):
        def task_finished(self, index, record, accuracy) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config(stream, "finetune"), tmp_path / "run", replace(HERE, threads=1), Stop())
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    assert run(config(stream, "finetune"), tmp_path / "run", replace(HERE, threads=1))["notes"] == []
    monkeypatch.setattr(machine, "processor_name", lambda: "Other")
    (note,) = run(config(stream, "finetune"), tmp_path / "moved", replace(HERE, threads=2))["notes"]
    assert re.fullmatch(
        r"started with .+ \(\w+\), 1 thread, continued with Other \(\w+\), 2 threads: equal to rounding, not to the bit", note
    )


class Peeks(Finetune):
    """Looks back at the task before."""

    def learn(self, task: Task, context):
        if self.tasks:
            self.before.train  # noqa: B018
        self.before = task
        return super().learn(task, context)


class Keeps(Finetune):
    def learn(self, task: Task, context):
        self.kept = task.train.images
        return super().learn(task, context)


@pytest.mark.parametrize(("method", "error"), [(Peeks, RetiredTaskError), (Keeps, RuntimeError)])
def test_earlier_data_are_out_of_reach(stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method, error) -> None:
    entry = MethodEntry("finetune", f"{__name__}:{method.__name__}", FinetuneSettings, "", "")
    monkeypatch.setitem(METHODS, "finetune", entry)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    with pytest.raises(error):
        run(config(stream), tmp_path / "run", HERE)


def test_retire_frees_the_images() -> None:
    task = made_task().to("cpu")
    images = task.train.images
    with pytest.raises(RuntimeError, match="keeps images"):
        retire(task, "someone")
    del images
    with pytest.raises(RetiredTaskError):
        task.train  # noqa: B018


def test_images_that_only_garbage_holds_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage is collected where it holds them, and only there, since that costs as much as a small task's epoch."""
    collections = []
    monkeypatch.setattr(gc, "collect", lambda collect=gc.collect: collections.append(1) or collect())
    free, circle = made_task().to("cpu"), made_task().to("cpu")
    assert len(free.train)
    retire(free, "someone")
    assert not collections
    gc.disable()
    try:
        held = [circle.train.images]
        held.append(held)
        del held
        retire(circle, "someone")
    finally:
        gc.enable()
    assert len(collections) == 1


def test_compare_and_read_back(stream: str, tmp_path: Path) -> None:
    configs = [config(stream, "finetune"), config(stream, "independent")]
    summaries = compare(configs, tmp_path / "both", HERE)
    assert [s["method"] for s in summaries] == ["finetune", "independent"]
    assert read_summaries([tmp_path / "both"]) == summaries
    assert read_summaries([tmp_path / "both/independent-seed0"]) == summaries[1:]
    assert read_summaries([tmp_path / "both/independent-seed0", tmp_path / "both"]) == summaries[::-1]  # each once
    with pytest.raises(LifelongError, match=r"no summary\.json"):
        read_summaries([tmp_path])


def test_distances_are_those_of_a_run(stream: str, tmp_path: Path) -> None:
    """Without training: what a run of PAR measures and decides."""
    asked = config(stream, "par")
    measured = distances(stream, 0, asked.settings, HERE)
    summary = run(asked, tmp_path / "run", HERE)
    assert measured["divergences"] == [task["divergences"] for task in summary["tasks"]]
    assert [d["decision"] for d in measured["decisions"]] == [task["decision"] for task in summary["tasks"]]
    assert measured["groups"] == [[0, 2], [1]]


def test_json_has_no_nan() -> None:
    assert plain({"a": (float("nan"), 1.0, [float("inf")])}) == {"a": [None, 1.0, [None]]}


def test_killed_between_the_last_save_and_the_last_write(stream: str, tmp_path: Path) -> None:
    """The saved state counts: the results are written from it, and stages that were left are swept."""
    out = tmp_path / "run"
    summary = run(config(stream), out, HERE)
    earlier = summary | {"complete": False, "tasks": summary["tasks"][:2], "accuracy": summary["accuracy"][:2]}
    (out / "summary.json").write_text(json.dumps(earlier.to_dict()))
    (out / "results.jsonl").write_text("")
    left = out / "checkpoint/stages/task-002"
    left.mkdir(parents=True)
    (left / "train.done.safetensors").write_bytes(b"left")
    again = run(config(stream), out, HERE)
    assert again["complete"]
    assert again["accuracy"] == summary["accuracy"]
    assert again["tasks"] == summary["tasks"]
    assert len((out / "results.jsonl").read_text().splitlines()) == 3
    assert not left.exists()


def test_weights_that_a_method_ruins_after_its_training_are_not_kept(stream: str, tmp_path: Path, monkeypatch) -> None:
    """Whatever a method does to its weights, and whichever task they answer for: no such state is saved."""
    learn = Finetune.learn

    def ruin(self, task, context):
        record = learn(self, task, context)
        if context.task_index == 1:
            self.heads[0].weight.data[0, 0] = float("nan")
        return record

    monkeypatch.setattr(Finetune, "learn", ruin)
    with pytest.raises(LifelongError, match="task 'b': weights that answer for task 'a' became NaN or infinite, with lr"):
        run(config(stream, "finetune"), tmp_path / "run", HERE)
    assert len(read_summary(tmp_path / "run")["tasks"]) == 1
