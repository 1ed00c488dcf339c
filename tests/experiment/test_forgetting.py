"""A task is forgotten: nothing of it is in any file of the run, and everything else is as it was."""

import contextlib
import json
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lifelong
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.experiment.run import run
from lifelong.experiment.saved import open_run
from lifelong.methods.conformance import made_context, made_task
from lifelong.methods.registry import make_method
from lifelong.settings.baselines import FinetuneSettings, IndependentSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.pretrained import LinearProbeSettings
from lifelong.settings.run import RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.trees import tensors_of
from tests.experiment.damage import HERE, copied
from tests.experiment.faults import Death, Faults, faulty
from tests.trees import same

NAMES = ("lilies", "walrus", "teapots")
STREAM = "name = 'three'\nimage_size = 8\n" + "".join(
    f"[[task]]\nname = '{name}'\nsource = 'digits'\nclasses = {classes}\ntrain_per_class = 8\nvalid_per_class = 4\ntest_per_class = 4\n"
    for name, classes in zip(NAMES, (["0", "1"], ["2", "3", "4"], ["5", "6"]), strict=True)
)
REST = [("independent", 0), ("independent", 2), ("par", 2), ("linear-probe", 0), ("linear-probe", 1)]
CASES = [("independent", 1), ("par", 0), ("par", 1), ("linear-probe", 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in REST)]
SETTINGS = {
    "independent": IndependentSettings(init_channels=2, backbone="cells"),
    "finetune": FinetuneSettings(init_channels=2, backbone="cells"),
    "par": PARSettings(init_channels=2, cells=2, extractor="pixels", variant="fixed+regularization", alpha=0.0),
    "linear-probe": LinearProbeSettings(extractor="pixels"),
}


def config(folder: Path, method: str) -> RunConfig:
    stream = folder / "three.toml"
    stream.write_text(STREAM)
    training = TrainingSettings(epochs=2, batch_size=16, lr=0.05)
    return RunConfig(stream=str(stream), method=method, seed=0, preset="paper", training=training, settings=SETTINGS[method])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("forget")
    for method in SETTINGS:
        run(config(folder, method), folder / method, HERE)
    return folder


def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def answers(out: Path) -> dict[str, torch.Tensor]:
    saved = open_run(out)
    return {name: saved.method.logits(images(), index) for index, name in enumerate(saved.names)}


def files(out: Path) -> dict[str, bytes]:
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}


def traces(out: Path, index: int) -> list[bytes]:
    """What only the task has: the bytes of its tensors and of its images' hashes, and its name."""
    saved = open_run(out)
    of = [{bytes(t.numpy().tobytes()) for m in saved.method.modules(at) for t in m.state_dict().values()} for at in range(3)]
    own = of[index] - set.union(*(tensors for at, tensors in enumerate(of) if at != index))
    hashes = [np.ascontiguousarray(each.numpy()).tobytes() for each in tensors_of(saved.state["contents"][index])]
    relatedness = saved.state["method"].get("relatedness", saved.state["method"])
    kept = [tensor.numpy().tobytes() for tensor in tensors_of(relatedness["bank"][index])] if "bank" in relatedness else []
    # Constant ones, such as counts of classes, may stand in any task.
    return [each for each in (*own, *hashes, *kept) if len(each) >= 32 and len(set(each)) > 4] + [NAMES[index].encode()]


@pytest.mark.parametrize(("method", "index"), CASES)
def test_nothing_is_left_and_nothing_else_changes(runs: Path, tmp_path: Path, method: str, index: int) -> None:
    out, name = copied(runs / method, tmp_path / "run"), NAMES[index]
    gone, before, wanted = traces(out, index), answers(out), read_summary(out)
    assert len(gone) > 3
    assert all(any(trace in content for content in files(out).values()) for trace in gone), "the search finds what is there"
    lifelong.write_report(out)
    for number, called in enumerate((name, "others")):
        (out / f"uploads/{number:016x}").mkdir(parents=True)
        (out / f"uploads/{number:016x}/draft.json").write_text(json.dumps({"name": called}))
    found = lifelong.forget(out, name)
    rest = [each for each in NAMES if each != name]
    assert (found.task, list(found.tasks)) == (name, rest)
    assert any("report.html" in line for line in found.removed)
    assert [folder.name for folder in (out / "uploads").iterdir()] == [f"{1:016x}"]
    for place, content in files(out).items():
        assert not [trace[:40] for trace in gone if trace in content], place
    after = answers(out)
    assert list(after) == rest
    assert all(torch.equal(after[each], before[each]) for each in rest)
    assert lifelong.verify(out, judge=True).sound
    summary = read_summary(out)
    assert [task.name for task in summary.tasks] == rest
    assert summary.accuracy[-1] == [value for at, value in enumerate(wanted.accuracy[-1]) if at != index]
    assert summary.parameters == sum(task.parameters_added or 0 for task in summary.tasks) or method == "linear-probe"
    assert [(version.number, version.current) for version in lifelong.history(out)] == [(4, True)]
    with pytest.raises(LifelongError, match="has no version 2; it has 4"):
        lifelong.rollback(out, 2)
    lifelong.write_report(out)
    # The command that started the run finds it finished, and learns nothing again.
    again = run(config(runs, method), out, HERE)
    assert [task.name for task in again.tasks] == rest
    assert same(answers(out), after)
    for place, content in files(out).items():
        assert not [trace[:40] for trace in gone if trace in content], place


def test_it_learns_on_and_forgets_what_was_added(runs: Path, tmp_path: Path) -> None:
    out = copied(runs / "independent", tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    labels = [number % 2 for number in range(24)]
    lifelong.forget(out, "walrus")
    for name in ("zebras", "violins"):
        task = lifelong.Task.from_arrays(pixels if name == "zebras" else 255 - pixels, labels, name=name)
        lifelong.learn(out, task, device="cpu", threads=1)
    before = answers(out)
    assert list(before) == ["lilies", "teapots", "zebras", "violins"]
    assert b"zebras" in b"".join(files(out).values())
    found = lifelong.forget(out, "zebras")
    assert list(found.tasks) == ["lilies", "teapots", "violins"]
    assert b"zebras" not in b"".join(files(out).values())
    assert all(torch.equal(answer, before[name]) for name, answer in answers(out).items())
    assert lifelong.verify(out, judge=True).sound
    assert json.loads((out / "checkpoint/added.json").read_text())["tasks"][0]["name"] == "violins"
    # And the same task once more, as if it were new.
    task = lifelong.Task.from_arrays(pixels, labels, name="zebras")
    assert [each.name for each in lifelong.learn(out, task, device="cpu", threads=1).tasks][-1] == "zebras"
    assert lifelong.verify(out, judge=True).sound
    assert len(lifelong.history(out)) == 2
    lifelong.rollback(out, lifelong.history(out)[0].number)
    assert list(answers(out)) == ["lilies", "teapots", "violins"]


def test_what_cannot_be_forgotten_is_refused_in_one_line(runs: Path, tmp_path: Path, capsys) -> None:
    out = copied(runs / "finetune", tmp_path / "run")
    before = files(out)
    with pytest.raises(LifelongError, match=r"all tasks together; without it 'lilies', 'teapots' would have to be learned again"):
        lifelong.forget(out, "walrus")
    with pytest.raises(LifelongError, match="has learned no task 'walrs'"):
        lifelong.forget(out, "walrs")
    assert files(out) == before
    assert main(["forget", str(out), "--task", "walrus"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    out = copied(runs / "independent", tmp_path / "all")
    assert main(["forget", str(out), "--task", "walrus"]) == 0
    assert "forgotten: walrus; left: lilies, teapots" in capsys.readouterr().out
    lifelong.forget(out, "lilies")
    with pytest.raises(LifelongError, match="is the only one"):
        lifelong.forget(out, "teapots")


def test_a_shared_expert_is_not_forgotten() -> None:
    settings = replace(SETTINGS["par"], alpha=100.0)
    method = make_method("par", settings)
    for index in range(3):
        method.learn(made_task(index, 4), made_context(index, TrainingSettings(epochs=1, batch_size=8)))
    entangled = method.forgettable(1)
    assert entangled is not None
    assert (entangled.again, "with other tasks of its group" in entangled.reason) == ((0, 2), True)
    with pytest.raises(ValueError, match="made-1"):
        method.forget(1)


def test_killed_while_it_forgets(runs: Path, tmp_path: Path) -> None:
    """Whatever the call: the next command finds the task whole, or finishes; never something between."""
    gone, before = traces(runs / "independent", 1), answers(runs / "independent")
    with faulty(Faults(copied(runs / "independent", tmp_path / "counted"))) as faults:
        lifelong.forget(tmp_path / "counted", "walrus")
    calls, done = len(faults.seen), []
    for at in sorted({*random.Random(0).sample(range(calls), 6), calls - 1}):
        out = copied(runs / "independent", tmp_path / "run")
        with faulty(Faults(out, at, "death in the middle")) as faults, contextlib.suppress(Death):
            lifelong.forget(out, "walrus")
        assert faults.happened
        done.append(len(answers(out)) == 2)
        assert not (out / "checkpoint/forgetting").exists(), faults.seen[at]
        assert all(torch.equal(answer, before[name]) for name, answer in answers(out).items()), faults.seen[at]
        RunDirectory(out).drop_parts()
        assert lifelong.verify(out).sound, (faults.seen[at], lifelong.verify(out))
        if done[-1]:
            assert not any(trace in content for content in files(out).values() for trace in gone), faults.seen[at]
            assert [version.current for version in lifelong.history(out)] == [True]
        else:
            assert [version.number for version in lifelong.history(out)] == [1, 2, 3]
            lifelong.forget(out, "walrus")
            assert not any(trace in content for content in files(out).values() for trace in gone), faults.seen[at]
        shutil.rmtree(out)
    assert done == sorted(done)
    assert len(set(done)) == 2, "deaths before and after the step that decides"


def killed(out: Path, at: int) -> bool:
    """Forget in a process of its own, which the system kills at a call that changes something; tell whether it came to that."""
    process = os.fork()
    if not process:
        try:
            with faulty(Faults(out, at, "SIGKILL")):
                lifelong.forget(out, "walrus")
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
def test_killed_by_the_system_at_every_call(runs: Path, tmp_path: Path) -> None:
    """The run is before or after; the same call finishes, even if it is killed, too; and nothing of the task is in any file."""
    whole, out, chance = runs / "independent", tmp_path / "run", random.Random(0)
    lifelong.write_report(copied(whole, tmp_path / "whole"))
    (tmp_path / "whole/uploads/0000000000000000").mkdir(parents=True)
    (tmp_path / "whole/uploads/0000000000000000/draft.json").write_text(json.dumps({"name": "walrus"}))
    gone, before = traces(whole, 1), answers(whole)
    done: list[bool] = []
    while killed(copied(tmp_path / "whole", out), len(done)):
        at, pending = len(done), (out / "checkpoint/forgetting/plan.json").exists()
        opened = answers(copied(out, tmp_path / "opened"))
        assert all(torch.equal(answer, before[name]) for name, answer in opened.items()), at
        done.append("walrus" not in opened)
        if not done[-1] or pending:
            killed(out, chance.randrange(at + 60))
        try:
            assert lifelong.forget(out, "walrus").tasks == ("lilies", "teapots"), at
        except LifelongError as error:
            # Only where the whole was done: nothing knows the task any more.
            assert "has learned no task 'walrus'" in str(error)  # noqa: PT017
            assert done[-1], at
        for place in (out, *([tmp_path / "opened"] if done[-1] else [])):
            left = [file for file, content in files(place).items() if any(trace in content for trace in gone)]
            assert not left, (at, left)
            assert not [*place.rglob("*.part"), *place.rglob("forgetting"), *place.glob("report.html"), *place.glob("uploads/*")], at
        assert lifelong.verify(out).sound, (at, lifelong.verify(out))
        assert list(answers(out)) == ["lilies", "teapots"]
    assert len(done) > 80
    assert done == sorted(done)
    assert len(set(done)) == 2
