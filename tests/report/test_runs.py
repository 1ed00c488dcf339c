"""Runs are one row only where they differ in nothing but their seed."""

import pytest

from lifelong.errors import LifelongError
from lifelong.report.comparison import write_comparison
from lifelong.report.runs import by_stream, check_distinct, group


def made(make_summary, seed: int = 0, *, images: str = "x", place: str = "digits", recorded: bool = True, **more):
    """A run whose stream has some images; a version that records of what a stream is made says so."""
    summary = make_summary(2, seed=seed, cells=False, **more) | {"stream_fingerprint": f"{images}{seed}" * 8}
    summary["settings"]["stream"] = place
    content = {"definition": "d", "sources": {"photos": images}} if recorded else None
    return summary | {"stream_content": content}


def seeds(one):
    return one.values(lambda summary: summary.seed)


def rows(runs):
    return {stream: [(one.label, seeds(one)) for one in members] for stream, members in by_stream(runs).items()}


@pytest.mark.parametrize("recorded", [True, False])
def test_seeds_of_one_stream_are_one_row(make_summary, recorded):
    assert rows([made(make_summary, seed, recorded=recorded) for seed in range(3)]) == {"digits": [("par", [0, 1, 2])]}


@pytest.mark.parametrize("second", [0, 1])
def test_streams_of_one_name_with_other_images_stay_apart(make_summary, second):
    """Also where the seeds differ, with which the fingerprints differ in any case."""
    runs = [made(make_summary, 0, place="folder:site1/photos"), made(make_summary, second, images="y", place="folder:site2/photos")]
    assert rows(runs) == {"digits (folder:site1/photos)": [("par", [0])], "digits (folder:site2/photos)": [("par", [second])]}
    both = ["par on digits (folder:site1/photos)", "par on digits (folder:site2/photos)"]
    assert [one.label for one in group(runs)] == both


def test_runs_of_earlier_versions_are_told_apart_by_the_fingerprints_of_a_seed(make_summary):
    runs = [made(make_summary, images=images, recorded=False) for images in "xyx"]
    assert rows(runs) == {
        "digits (images x0x0x0x0)": [("par", [0]), ("par (run 2)", [0])],
        "digits (images y0y0y0y0)": [("par", [0])],
    }


def test_an_edited_stream_of_the_same_images_is_another(make_summary):
    edited = made(make_summary, 1)
    edited["stream_content"] = {"definition": "e", "sources": {"photos": "x"}}
    assert list(rows([made(make_summary), edited])) == ["digits (images x0x0x0x0)", "digits (images x1x1x1x1)"]


def test_a_source_that_one_seed_does_not_draw_from_tells_nothing_apart(make_summary):
    other = made(make_summary, 1)
    other["stream_content"] = {"definition": "d", "sources": {"paintings": "z"}}
    assert rows([made(make_summary), other]) == {"digits": [("par", [0, 1])]}


def test_a_seed_is_counted_once(make_summary):
    """A second run of a seed has a row of its own, with what tells it apart."""
    first, again, other = made(make_summary), made(make_summary), made(make_summary, 1)
    assert [(one.label, seeds(one)) for one in group([first, other, again])] == [
        ("par", [0, 1]),
        ("par (run 2)", [0]),
    ]
    again["device"] = "cuda"
    labels = [(one.label, seeds(one)) for one in group([first, other, again])]
    assert labels == [("par (device cpu)", [0, 1]), ("par (device cuda)", [0])]


def test_other_weights_and_other_added_tasks_are_other_runs(make_summary):
    one, other = made(make_summary), made(make_summary, 1) | {"extractor_weights": "abc"}
    assert [run.label for run in group([one, other])] == ["par", "par (weights abc)"]
    grown = [made(make_summary, seed) for seed in range(2)]
    for summary, added in zip(grown, "pq", strict=True):
        summary["stream_content"]["added"] = [added]
    assert [run.label for run in group(grown)] == ["par (added p)", "par (added q)"]


def test_the_table_for_programs_has_a_row_for_each(make_summary, tmp_path):
    runs = [made(make_summary, place=f"folder:{site}/photos", images=site) for site in ("one", "two")]
    write_comparison(tmp_path, runs)
    lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert [line.split(",")[:5] for line in lines[1:]] == [
        ["digits (folder:one/photos)", "par", "True", "1", "0"],
        ["digits (folder:two/photos)", "par", "True", "1", "0"],
    ]


def test_a_copy_is_refused_by_name(make_summary):
    with pytest.raises(LifelongError, match="one and copy are the same run"):
        check_distinct({"one": made(make_summary), "other": made(make_summary, 1), "copy": made(make_summary)})
    check_distinct({"one": made(make_summary), "other": made(make_summary, 1)})
