"""The versions of a run: rolled back, it goes on as if what came later had never been; compacted, it stays whole, killed at any moment."""

import contextlib
import json
import random
import shutil
from pathlib import Path

import pytest
import torch

import lifelong
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.identity import STATE_VERSION
from lifelong.experiment.letting_go import due, let_go_of_oldest
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.experiment.run import run
from lifelong.segment import FOLDERS
from tests.experiment.damage import HERE, STATE, again, certain, config, copied, end, flip
from tests.experiment.faults import Death, Faults, faulty
from tests.trees import same


def test_each_task_is_a_version_with_its_certificate(base: Path) -> None:
    first, second = lifelong.history(base / "finetune-0")
    assert (first.number, first.tasks, first.task, first.current, first.certificates) == (1, 1, "a", False, ())
    assert (second.number, second.tasks, second.task, second.current) == (2, 2, "b", True)
    accuracy = read_summary(base / "finetune-0")["accuracy"]
    # Finetune changes the network that all tasks share.
    assert second.certificates == (lifelong.Certificate("a", accuracy[0][0], accuracy[1][0], changed=True),)
    assert [one.changed for one in lifelong.history(base / "par-0")[-1].certificates] == [False]


@pytest.mark.parametrize("method", ["finetune", pytest.param("par", marks=pytest.mark.slow)])
def test_rolled_back_it_learns_the_same_again(base: Path, tmp_path: Path, method: str) -> None:
    out = copied(base / f"{method}-0", tmp_path / "run")
    assert lifelong.rollback(out, 1).current
    assert lifelong.verify(out).sound
    assert [len(read_summary(out)["tasks"]), len((out / "results.jsonl").read_text().splitlines())] == [1, 1]
    assert not any(json.loads(line)["task"] for line in (out / "curves.jsonl").read_text().splitlines())
    assert list(lifelong.Learner.load(out, device="cpu").tasks) == ["a"]
    # Until it learns again, there is a way forward.
    assert lifelong.rollback(out, 2).current
    assert same(end(out), end(base / f"{method}-0"))
    assert certain(read_summary(out)) == certain(read_summary(base / f"{method}-0"))
    lifelong.rollback(out, 1)
    summary, said = again(out, config(base, method))
    assert not any("damaged" in note or "rewritten" in note for note in said)
    assert same(end(out), end(base / f"{method}-0"))
    assert certain(summary) == certain(read_summary(base / f"{method}-0"))
    assert (out / "curves.jsonl").read_text() == (base / f"{method}-0" / "curves.jsonl").read_text()
    assert [version.current for version in lifelong.history(out)] == [False, True]


def test_a_version_that_is_not_there_is_one_line(base: Path, tmp_path: Path, capsys) -> None:
    out = copied(base / "finetune-0", tmp_path / "run")
    with pytest.raises(LifelongError, match=r"has no version 7; it has 1, 2 \(lifelong history"):
        lifelong.rollback(out, 7)
    with pytest.raises(LifelongError, match="holds no run"):
        lifelong.history(tmp_path / "none")
    with pytest.raises(LifelongError, match="keep = 0"):
        lifelong.compact(out, 0)
    assert main(["rollback", str(out), "--to", "1"]) == 0
    assert main(["history", str(out)]) == 0
    assert "1 *" in capsys.readouterr().out
    assert main(["compact", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == 1
    assert main(["rollback", str(out), "--to", "2"]) == 2


def test_compacted_it_is_the_same_and_smaller(base: Path, tmp_path: Path) -> None:
    out = copied(base / "finetune-0", tmp_path / "run")
    wanted, earlier = end(out), RunDirectory(out).read_state(RunDirectory(out).previous_file).tree["method"]
    found = lifelong.compact(out)
    assert found.versions == 2
    assert found.after <= found.before
    lifelong.rollback(out, 1)
    assert same(RunDirectory(out).load()["method"], earlier)
    lifelong.rollback(out, 2)
    found = lifelong.compact(out, keep=1)
    assert found.after < found.before
    assert lifelong.verify(out).sound
    assert same(end(out), wanted)
    assert [version.number for version in lifelong.history(out)] == [2]
    # Compacted once more nothing is left to drop.
    assert lifelong.compact(out, keep=1).before == lifelong.compact(out, keep=1).after


def killed(out: Path, at: int) -> bool:
    """Compact a run and let the process die at a call; return whether it came to that."""
    with faulty(Faults(out, at, "death in the middle")) as faults, contextlib.suppress(Death):
        lifelong.compact(out, keep=1)
    return faults.happened


def test_killed_while_it_is_compacted(base: Path, tmp_path: Path) -> None:
    """Whatever the call: the run is sound, and the same."""
    with faulty(Faults(copied(base / "finetune-0", tmp_path / "counted"))) as faults:
        lifelong.compact(tmp_path / "counted", keep=1)
    calls = len(faults.seen)
    assert calls >= 8
    for at in random.Random(0).sample(range(calls), 6):
        out = copied(base / "finetune-0", tmp_path / "run")
        assert killed(out, at), faults.seen[at]
        assert same(end(out), end(base / "finetune-0")), faults.seen[at]
        lifelong.compact(out, keep=1)
        assert lifelong.verify(out).sound, faults.seen[at]
        assert not list(out.rglob("*.part")), faults.seen[at]
        assert {file.name for file in (out / "checkpoint/parts").iterdir()} == {file.name for file in (out / "checkpoint/mirror").iterdir()}


def test_what_was_let_go_of_is_said(base: Path, tmp_path: Path) -> None:
    """What a run lets go of is gone, and nobody else's."""
    out = copied(base / "finetune-0", tmp_path / "run")
    directory = RunDirectory(out)
    # As a third task leaves it, after which nothing needs the first.
    shutil.copy(directory.state_file, directory.previous_file)
    let_go_of_oldest(directory, 1)
    assert same(end(out), end(base / "finetune-0"))
    assert lifelong.verify(out).sound
    (only,) = lifelong.history(out)
    assert (only.number, only.tasks, only.current) == (2, 2, True)
    with pytest.raises(LifelongError, match=r"has no version 1; it has 2: earlier ones were let go of, see --keep-versions"):
        lifelong.rollback(out, 1)
    assert [version.number for version in lifelong.history(base / "finetune-0")] == [1, 2]


@pytest.mark.parametrize(("shared", "counts"), [(True, [1, 2, 3, 2, 3, 2, 3, 2, 3]), (False, [1, 2, 3, 4, 5, 6, 7, 8, 9])])
def test_old_versions_go_when_they_take_much(tmp_path: Path, shared: bool, counts: list[int]) -> None:
    """One network for all tasks takes as much with each version; networks that stay are needed by the current one, too."""
    directory = RunDirectory(tmp_path)
    directory.write_identity({"version": STATE_VERSION, "stream": "s", "method": "m", "seed": 0, "stream images": "i"})
    directory.keep_versions = 2
    chance = torch.Generator().manual_seed(0)
    networks: list[torch.Tensor] = []
    found, sizes = [], []
    for task in range(len(counts)):
        networks = [*([] if shared else networks), torch.randn(1000, generator=chance)]
        directory.save({"entries": [{"name": str(index)} for index in range(task + 1)], "method": list(networks)})
        found.append(len(directory.journal.kept()))
        sizes.append(directory.parts.bytes())
        # The oldest can still be read.
        oldest = directory.parts.tree(directory.journal.kept()[0].state["method"].name)
        assert len(oldest) == 1
    assert found == counts
    held = 3 if shared else 9
    assert 8000 * held < sizes[-1] < 8000 * (held + 3)  # in two copies, with what names them


@pytest.mark.parametrize(("keep", "counts"), [(0, []), (1, [2, 4, 8, 16, 32]), (20, [40, 80])])
def test_when_old_versions_are_looked_at(keep: int, counts: list[int]) -> None:
    assert [count for count in range(1, 160 if keep == 20 else 64) if due(count, keep)] == counts


def test_killed_while_it_lets_go_of_versions(base: Path, tmp_path: Path) -> None:
    """Whatever the call: the run is sound, the same, and can go back to where it says."""

    def let_go(out: Path, faults: Faults) -> None:
        # As a third task leaves it, after which nothing needs the first.
        directory = RunDirectory(out)
        shutil.copy(directory.state_file, directory.previous_file)
        with faulty(faults), contextlib.suppress(Death):
            let_go_of_oldest(directory, 1)

    counted = Faults(copied(base / "finetune-0", tmp_path / "counted"))
    let_go(tmp_path / "counted", counted)
    assert RunDirectory(tmp_path / "counted").parts.bytes() < RunDirectory(base / "finetune-0").parts.bytes()
    for at in random.Random(0).sample(range(len(counted.seen)), 5):
        out = copied(base / "finetune-0", tmp_path / "run")
        faults = Faults(out, at, "death in the middle")
        let_go(out, faults)
        assert faults.happened, counted.seen[at]
        assert same(end(out), end(base / "finetune-0")), counted.seen[at]
        lifelong.rollback(out, lifelong.history(out)[0].number)
        assert lifelong.verify(out).sound, counted.seen[at]


def test_killed_while_a_state_is_added(base: Path, tmp_path: Path) -> None:
    """At calls that write parts, the list of versions, or the root: the run goes on to the same end."""
    straight = copied(base / "finetune-0", tmp_path / "straight")
    lifelong.rollback(straight, 1)
    with faulty(Faults(copied(straight, tmp_path / "counted"))) as faults:
        run(config(base), tmp_path / "counted", HERE)
    sorts = {}
    for number, call in enumerate(faults.seen):
        if any(name in call for name in ("000", "versions.jsonl", "run.safetensors", "results.jsonl")):
            sorts.setdefault(call, []).append(number)
    assert {call.split()[-1].strip(".").split(".")[0] for call in sorts} >= {"versions", "run", "results"}
    chance = random.Random(0)
    for call in chance.sample(sorted(sorts), 6):
        out = copied(straight, tmp_path / "run")
        with faulty(Faults(out, chance.choice(sorts[call]), chance.choice(("death", "death in the middle")))), pytest.raises(Death):
            run(config(base), out, HERE)
        summary, _ = again(out, config(base))
        assert same(end(out), end(base / "finetune-0")), call
        assert certain(summary) == certain(read_summary(base / "finetune-0")), call
        assert lifelong.verify(out).sound, call
        assert [version.number for version in lifelong.history(out)] == [1, 2], call


def test_a_segment_lost_in_both_copies_costs_what_came_after_it(base: Path, tmp_path: Path) -> None:
    out = copied(base / "finetune-0", tmp_path / "run")
    last = max(file.name for file in (out / "checkpoint/parts").iterdir())
    for place in FOLDERS:
        (out / "checkpoint" / place / last).unlink()
    (out / "checkpoint/run.previous.safetensors").unlink()
    assert not lifelong.verify(out).sound
    summary, said = again(out, config(base))
    assert any("run.safetensors was damaged" in note for note in said)
    assert same(end(out), end(base / "finetune-0"))
    assert certain(summary) == certain(read_summary(base / "finetune-0"))


def test_a_damaged_copy_costs_nothing(base: Path, tmp_path: Path) -> None:
    out = copied(base / "finetune-0", tmp_path / "run")
    file = out / "checkpoint/parts/000001.safetensors"
    flip(file, 8 * (file.stat().st_size - 200))
    found = {each.file: each.condition for each in lifelong.verify(out).files}
    assert found["checkpoint/parts/000001.safetensors"] == "damaged"
    assert found[STATE] == "good"
    assert lifelong.verify(out, repair=True).repaired == (
        "checkpoint/parts/000001.safetensors was damaged or missing; rewritten from its copy",
    )
    assert lifelong.verify(out).sound


def test_a_run_of_an_earlier_version_gets_versions_when_it_learns(tmp_path: Path) -> None:
    out = Path(shutil.copytree(Path(__file__).parent / "stored/finetune", tmp_path / "run"))
    assert lifelong.history(out) == ()
    lifelong.learn(out, "digits", name="all", device="cpu", threads=1, progress=False)
    (version,) = lifelong.history(out)
    assert (version.tasks, version.task, version.current) == (3, "all", True)
    assert lifelong.verify(out).sound
