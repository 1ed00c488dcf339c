import pytest

from lifelong.errors import LifelongError
from lifelong.reproduction.make import WHAT
from lifelong.reproduction.paper import TABLES, paper_table
from lifelong.reproduction.plan import Choice, plan
from lifelong.reproduction.scales import SCALES, read_scale
from lifelong.reproduction.sweeps import SWEEPS, plan_sweep


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("what", [what for what in WHAT if what in TABLES or what in SWEEPS])
def test_every_run_of_every_scale_has_settings(scale, what):
    """A misspelt setting or value in a scale's file would raise here. Folders tell all runs apart."""
    choice = Choice(read_scale(scale), seeds=(0,))
    jobs = plan(paper_table(what), choice) if what in TABLES else plan_sweep(SWEEPS[what], choice)
    assert len({job.folder for job in jobs}) == len(jobs)
    assert all(job.config.stream.partition("?")[0] == job.stream for job in jobs)


def test_the_papers_scale_is_whole():
    assert Choice(read_scale("paper")).seeds == (0, 1, 2)
    jobs = plan(paper_table("table1"), Choice(read_scale("paper"), seeds=(2,)))
    assert len(jobs) == 6 * 11 - 3  # three methods have no number on S_long
    assert {job.config.stream for job in jobs} == {stream.name for stream in paper_table("table1").streams}
    (par,) = [job for job in jobs if (job.row, job.stream) == ("par", "ctrl-s-in")]
    assert (par.config.preset, par.config.training.epochs, par.config.settings.search_epochs) == ("paper", 500, 50)
    (hat,) = [job for job in jobs if (job.row, job.stream) == ("hat", "ctrl-s-in")]
    assert hat.config.settings.backbone == "alexnet-hat"


def test_variants_are_runs_of_their_own():
    jobs = plan(paper_table("table5"), Choice(read_scale("paper"), seeds=(0,)))
    assert [job.config.settings.variant for job in jobs] == [
        *("fixed", "fine", "coarse+fine", "regularization", "fixed+regularization", "fine+regularization", "par"),
    ]


def test_tables_share_their_runs():
    """PAR on CIFAR100-10 is in three tables and two figures; it is one run."""
    choice = Choice(read_scale("small"), seeds=(0,))
    planned = [plan(paper_table(name), choice) for name in ("table3", "table4", "table5")] + [
        plan_sweep(sweep, choice) for sweep in SWEEPS.values()
    ]
    found = [next(job for job in jobs if str(job.folder) == "cifar100-10/par-seed0") for jobs in planned]
    assert len({job.config for job in found}) == 1


def test_sources_left_out_are_left_out_where_they_are():
    choice = Choice(read_scale("small"), seeds=(0,), without=("svhn", "dtd"))
    (minus,) = plan(paper_table("table1"), Choice(choice.scale, (0,), ("par",), ("S-",), choice.without))
    assert minus.config.stream.endswith("&without=svhn+dtd")
    assert str(minus.folder) == "ctrl-s-minus-without-svhn-dtd/par-seed0"
    assert not any("without" in job.config.stream for job in plan(paper_table("table5"), choice))


def test_filters():
    choice = Choice(read_scale("small"), (1,), ("par", "ewc"), ("S+", "ctrl-s-long"))
    assert [(job.row, job.stream) for job in plan(paper_table("table1"), choice)] == [
        *(("ewc", "ctrl-s-plus"), ("par", "ctrl-s-plus"), ("ewc", "ctrl-s-long"), ("par", "ctrl-s-long")),
    ]
    assert [job.row for job in plan(paper_table("table5"), Choice(choice.scale, (0,), ("par",)))] == ["par"]
    for wrong, line in ((("lwff",), "--methods lwff: not in table3; did you mean 'lwf'"), (("cat",), "--methods cat: not in table3")):
        with pytest.raises(LifelongError, match=line):
            plan(paper_table("table3"), Choice(choice.scale, methods=wrong))
    with pytest.raises(LifelongError, match="--streams digits: not in table3"):
        plan(paper_table("table3"), Choice(choice.scale, streams=("digits",)))


def test_a_scale_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    sections = (
        "[settings]\nepochs = 7",
        "[method.par]\nepochs = 8",
        '[streams]\n"cifar100-10" = "tasks=3"',
        '[stream."cifar100-10"]\nlr = 0.3',
    )
    file.write_text("\n".join(('preset = "quick"', *sections)))
    scale = read_scale(str(file))
    assert (scale.name, scale.full, scale.stream("cifar100-10")) == ("mine", False, "cifar100-10?tasks=3")
    assert scale.values("par", "cifar100-10") == {"epochs": 8, "lr": 0.3}
    assert scale.values("ewc", "ctrl-s-in") == {"epochs": 7}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("mine.toml", "[setings]\n", "'setings' is not part of a scale; did you mean 'settings'"),
        ("mine.toml", "settings = 3\n", "'settings' is a section"),
        ("mine.toml", "[method]\npar = 3\n", "'par' is a section"),
        ("mine.toml", "[streams]\ndigits = 3\n", "digits = 3: expected text"),
        ("mine.toml", "preset = 3\n", "preset = 3: expected text"),
        ("mine.toml", "=\n", "is not valid TOML"),
        ("paper.toml", "", "rename the file"),
        ("gone.toml", None, "cannot read the scale"),
        ("smal", None, "unknown scale 'smal'; did you mean 'small'"),
    ],
)
def test_wrong_scales(name, text, line, tmp_path):
    path = tmp_path / name if name.endswith(".toml") else name
    if text is not None:
        path.write_text(text)
    with pytest.raises(LifelongError) as caught:
        read_scale(str(path))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
