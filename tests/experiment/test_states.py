"""A saved state with a value of a wrong kind is said in one line, or does no harm; it never ends in a foreign exception."""

import itertools
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, jaxtyped
from torch import Tensor

import lifelong
from lifelong.api import configure
from lifelong.errors import LifelongError
from lifelong.experiment.curves import Curves
from lifelong.experiment.run import run
from lifelong.experiment.saved import open_run
from lifelong.methods.form import MisfitError, hold_tree, same_form
from lifelong.methods.forms import FORMS
from lifelong.methods.registry import METHODS
from lifelong.methods.restoring import restore
from lifelong.settings.run import Environment
from lifelong.storage import load_tree
from lifelong.training.stages import Epoch
from tests.experiment.kill_driver import experiment
from tests.experiment.mutations import found, mutations, places, replaced
from tests.photographs import picture
from tests.resaved import resave
from tests.trees import same

STORED = Path(__file__).parent / "stored"
RUNS = sorted(folder.name for folder in STORED.iterdir())
IMAGES = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
STATE = "checkpoint/run.safetensors"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("pictures") / "new"
    for number, label in itertools.product(range(8), "ab"):
        (place / label).mkdir(parents=True, exist_ok=True)
        picture(2 * number + (label == "b"), 1).save(place / label / f"{number}.png")
    return place


def outcome(use: Callable[[], object]) -> str:
    """What comes of using a run: "done", "refused", or "no line" where what is said is none; anything else passes through."""
    try:
        use()
    except LifelongError as error:
        return "refused" if len(str(error).splitlines()) == 1 and len(str(error)) < 700 else "no line"
    return "done"


def predict(run: Path) -> None:
    """Ask for every task, and once without naming one where the method can tell."""
    learner = lifelong.Learner.load(run, device="cpu", threads=1)
    for task in learner.tasks:
        learner.predict(IMAGES, task)
    learner.predict(IMAGES, infer="auto")


def uses(run: Path, pictures: Path) -> dict[str, Callable[[], object]]:
    """All that a run is used for, in an order in which the last one changes it."""
    return {
        "predict": lambda: predict(run),
        "run": lambda: lifelong.run(config=run / "config.toml", out=run, device="cpu", threads=1, progress=False),
        "export": lambda: lifelong.export(run, lifelong.Learner.load(run, device="cpu").tasks.__iter__().__next__(), format="torch"),
        "learn": lambda: lifelong.learn(run, f"folder:{pictures}", device="cpu", threads=1, progress=False),
    }


def tried(name: str, count: int, seed: int, place: Path, pictures: Path, which: tuple[str, ...]) -> Counter[str]:
    """Use a stored run with so many wrong values, one at a time."""
    tree, seen = load_tree(STORED / name / STATE), Counter[str]()
    for number, (what, wrong) in enumerate(mutations(tree, count, seed)):
        run = shutil.copytree(STORED / name, place / f"{name}-{number}")
        resave(run, run / STATE, wrong)
        for use, call in uses(run, pictures).items():
            if use in which:
                try:
                    seen[f"{use} {outcome(call)}"] += 1
                except BaseException as error:
                    raise AssertionError(f"{name}, {what}: {use} ends in {error!r}") from error
        shutil.rmtree(run)
    return seen


@pytest.mark.parametrize("name", RUNS)
def test_a_wrong_value_is_one_line(name, tmp_path, pictures):
    seen = tried(name, 1, 5, tmp_path, pictures, ("predict",))
    assert seen["predict refused"] + seen["predict done"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_many_wrong_values_in_all_uses(name, tmp_path, pictures):
    seen = tried(name, 20, 11, tmp_path, pictures, ("predict", "run", "export", "learn"))
    assert not any(what.endswith("no line") for what in seen), seen
    assert seen.total() == 80
    assert seen["predict refused"] >= 10, seen


def test_every_method_of_ours_has_a_form():
    assert set(FORMS) == {name for name, entry in METHODS.items() if entry.target.startswith("lifelong.")}


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("finetune", ("method", "tasks", 0, "classes"), "5", "method/tasks/0/classes: '5', expected an integer >= 1"),
        ("finetune", ("method", "tasks", 0, "classes"), 4, "'low' of 4 classes, not 'low' of 5"),
        ("finetune", ("method", "heads", 1, "weight"), None, "method/heads/1/weight: None, expected a tensor"),
        ("finetune", ("entries", 0, "classes"), {}, r"entries/0/classes: a dict of 0, expected a list"),
        ("finetune", ("accuracy",), [[0.5]], r"accuracy: rows of \[1\] for 2 tasks"),
        ("mntdp-d", ("method", "paths", 0), (0, 0, -1, 0, 0, 0), r"method/paths/0/2: -1, expected an integer >= 0"),
        ("mntdp-d", ("method", "paths", 0), (0, 0, 7, 0, 0, 0), r"IndexError"),
        ("er", ("method", "store", 0, "labels"), torch.full((20,), 5), r"method/store/0: labels of other classes than the task's 5"),
        ("er", ("method", "seen"), -40, r"method/seen: -40, expected an integer >= 0"),
        ("ewc", ("method", "quadratic"), {"importance": torch.zeros(3), "anchor": torch.zeros(3)}, "importance: 3 numbers for 842 shared"),
        ("gpm", ("method", "bases", "stem.0"), torch.zeros(3, 2), r"method/bases/stem.0: 3 rows, expected 27"),
        ("par", ("method", "relatedness", "groups", "members"), [[0], [0]], r"they hold tasks \[0, 0\] of 2"),
        ("cat", ("method", "similar"), [[], [1]], r"task 1 is similar to earlier ones alone"),
        ("sg-f", ("method", "widths", 1), (1, 9, 1, 1, 1), r"method/widths/1"),
    ],
)
def test_the_line_says_where_and_what(name, place, value, words, tmp_path):
    run = shutil.copytree(STORED / name, tmp_path / name)
    resave(run, run / STATE, replaced(load_tree(run / STATE), place, value))
    with pytest.raises(LifelongError, match=words):
        open_run(run)


def test_nothing_global_is_drawn_to_load():
    """So that a program may load a run while it trains in another thread."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for name in ("cat", "pnn"):
        open_run(STORED / name)
    assert torch.equal(torch.get_rng_state(), before)


class Stopped(Exception):  # noqa: N818 - it stands for a kill
    """Ends a run in the middle."""


def interrupted(start: Callable[[], object], monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """A run that is stopped after so many epochs, with its stages saved."""
    left, write = iter(range(epochs)), Curves.epoch

    def count(self: Curves, event: Epoch) -> None:
        if next(left, None) is None:
            raise Stopped
        write(self, event)

    with monkeypatch.context() as patched:
        patched.setattr(Curves, "epoch", count)
        with pytest.raises(Stopped):
            start()


def stage_files(out: Path) -> list[Path]:
    return sorted((out / "checkpoint/stages").rglob("*.safetensors"))


def tiny(out: Path) -> None:
    """Two tasks of six images, four epochs each."""
    stream = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"
    config = configure(stream, "finetune", preset="quick", epochs=4, init_channels=2, patience=0)
    run(config, out, Environment(device="cpu", threads=1, save_every=0.0))


def test_a_stage_of_another_form_is_computed_anew(tmp_path, monkeypatch):
    """And the end is that of a straight run, to the bit."""
    tiny(tmp_path / "straight")
    interrupted(lambda: tiny(tmp_path / "stopped"), monkeypatch, epochs=6)
    (file,) = stage_files(tmp_path / "stopped")
    resave(tmp_path / "stopped", file, replaced(load_tree(file), ("module",), "wrong"))
    out = tmp_path / "stopped"
    tiny(out)
    straight, resumed = (load_tree(place / STATE) for place in (tmp_path / "straight", out))
    assert same(straight["method"], resumed["method"])
    assert "it is learned again from the start" in (out / "summary.json").read_text()
    assert (out / "curves.jsonl").read_text() == (tmp_path / "straight/curves.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_wrong_values_in_stages(method, tmp_path, monkeypatch):
    """Where the value is read, the task is learned anew; what does not matter does not matter."""
    interrupted(lambda: experiment(tmp_path / "stopped", method), monkeypatch, epochs=13)
    for number in range(8):
        out = shutil.copytree(tmp_path / "stopped", tmp_path / str(number))
        files = stage_files(out)
        file = files[number % len(files)]
        ((what, wrong),) = mutations(load_tree(file), 1, number)
        resave(out, file, wrong)
        try:
            outcome(lambda out=out: experiment(out, method))
        except BaseException as error:
            raise AssertionError(f"{method}, {file.name}, {what}") from error


def test_the_form_of_a_tree():
    hold_tree(dict[str, list[tuple[int, float]]], {"a": [(1, 2.0), (1, 2)]})
    for form, tree in [
        (int, True),
        (int, 1.0),
        (float, "1"),
        (bool, 1),
        (list[int], (1,)),
        (tuple[int, int], (1,)),
        (dict[str, int], {1: 1}),
    ]:
        with pytest.raises(MisfitError):
            hold_tree(form, tree)
    with pytest.raises(MisfitError, match="finite"):
        hold_tree(torch.Tensor, torch.tensor([float("nan")]))
    same_form({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.float64), "b": 1})
    with pytest.raises(MisfitError, match="shape"):
        same_form({"a": torch.zeros(2)}, {"a": torch.zeros(3)})


def test_sizes_of_a_form_are_not_those_of_who_asks():
    """A program of a user may execute shapes too, and calls us from a function with axes of the same names."""
    with jaxtyped("context"):
        assert isinstance(torch.zeros(3), Float[Tensor, "n"])
        hold_tree(list[Float[Tensor, "n"]], [torch.zeros(4), torch.zeros(5)])
        assert not isinstance(torch.zeros(4), Float[Tensor, "n"])


def test_mutations_change_one_place():
    tree = {"a": [1, (2, "x")], "b": torch.ones(2)}
    assert list(places(tree)) == [("a",), ("a", 0), ("a", 1), ("a", 1, 0), ("a", 1, 1), ("b",)]
    assert replaced(tree, ("a", 1, 0), 5)["a"] == [1, (5, "x")]
    assert found(tree, ("a", 1, 1)) == "x"


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_method_that_has_learned_nothing_has_its_form(name):
    """As tuning keeps it before the first task."""
    restore(lifelong.make_method(name), lifelong.make_method(name).state_dict(), "cpu", "here")
