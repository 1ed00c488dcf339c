"""What a specification of a sweep means, and what is wrong with one that cannot be used."""

import pytest

from lifelong.errors import LifelongError
from lifelong.sweeps.spec import plan
from tests.documentation.test_pages import ROOT
from tests.sweeps.made import as_file, spec


def test_methods_times_streams_times_seeds_times_settings(tmp_path):
    content = spec(("par", "finetune"), seeds=2) | {"streams": ["digits?tasks=2", "digits?tasks=3"], "out": "runs/here"}
    content |= {"vary": {"alpha": [0.1, 0.2, 0.3], "lr": [0.1, 0.01]}, "method": {"par": {"tiny-task": 3}}}
    content["stream"] = {"digits?tasks=3": {"epochs": 7}}
    planned = plan(content)
    # Finetune has no alpha.
    assert len(planned.runs) == 2 * 2 * (3 * 2 + 2)
    assert len({run.name for run in planned.runs}) == len(planned.runs)
    assert str(planned.out) == "runs/here"
    run = next(run for run in planned.runs if run.name == "digits-tasks-3/par-alpha-0.2-lr-0.1-seed1")
    config = run.config
    assert (config.stream, config.method, config.seed, config.preset) == ("digits?tasks=3", "par", 1, "quick")
    assert (config.settings.alpha, config.settings.tiny_task, config.training.lr, config.training.epochs) == (0.2, 3, 0.1, 7)
    assert dict(run.varied) == {"alpha": 0.2, "lr": 0.1}
    assert plan(content, tmp_path).out == tmp_path


def test_a_file_is_as_its_content(tmp_path):
    file = as_file(spec(), tmp_path / "mine.toml")
    assert plan(file).runs == plan(spec()).runs
    assert str(plan(file).out) == "runs/mine"


def test_the_example():
    assert len(plan(ROOT / "examples" / "sweep.toml").runs) == 24


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"method": ["par"]}, "'method' is a section, such as [method], not a value"),
        ({"lr": 0.1}, "'lr' is not part of a sweep"),
        ({"seed": [1]}, "'seed' is not part of a sweep; did you mean 'seeds'?"),
        ({"streams": []}, "streams = []: give at least one, and none twice"),
        ({"methods": None}, "methods = None: expected a list"),
        ({"methods": ["par", "par"]}, "give at least one, and none twice"),
        ({"methods": ["pan"]}, "unknown method 'pan'; did you mean 'pnn'?"),
        ({"seeds": [-1]}, "seeds = [-1]: expected a list, each an integer"),
        ({"preset": "fast"}, "preset = 'fast': expected"),
        ({"settings": {"epochs": 0}}, "the sweep: --epochs 0: "),
        ({"settings": {"epoch": 1}}, "--epoch is not a setting; did you mean 'epochs'?"),
        ({"method": {"finetune": {"alpha": 0.1}}}, "[method.finetune]: 'alpha' is not a setting of finetune"),
        ({"settings": {"seed": 1}}, "[settings]: 'seed' is not a setting; give seeds at the top, as `seeds`"),
        ({"vary": {"preset": ["quick", "paper"]}}, "[vary]: 'preset' is not a setting; give it at the top"),
        ({"method": {"par": {}}}, "[method.par]: not in methods"),
        ({"stream": {"digits": {}}}, "[stream.digits]: not in streams"),
        ({"vary": {"lr": 0.1}}, "[vary]: lr = 0.1: give a list of values, none twice"),
        ({"vary": {"lr": [0.1, 0.1]}}, "give a list of values, none twice"),
        ({"vary": {"rate": [0.1]}}, "[vary]: 'rate' is not a setting of any of the methods"),
        ({"vary": {"epochs": [1, 2]}}, "epochs stands in [vary] and in [settings]; keep one"),
        ({"streams": ["a/x.toml", "b/x.toml"]}, "two runs would have the folder x/finetune-seed0"),
        (
            {"vary": {"lr": [float(number) for number in range(1, 400)]}, "seeds": list(range(400))},
            "319,200 runs are more than 100,000; vary fewer",
        ),
    ],
)
def test_what_is_wrong_is_one_line(change, line):
    with pytest.raises(LifelongError) as caught:
        plan(spec() | change)
    assert line in str(caught.value)
    assert str(caught.value).startswith("the sweep")
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(LifelongError, match=r"cannot read the sweep .*none\.toml: No such file"):
        plan(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("streams = [")
    with pytest.raises(LifelongError, match=r"bad\.toml is not valid TOML"):
        plan(tmp_path / "bad.toml")
