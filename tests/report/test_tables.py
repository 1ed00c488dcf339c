import io

import pytest
from rich.console import Console

from lifelong.cli.tables import print_comparison
from lifelong.report.tables import comparison_table, decision_table, divergence_table, result_table, task_table


def shown(table, width: int = 200) -> str:
    page = io.StringIO()
    Console(file=page, width=width, force_terminal=True, color_system=None).print(table)
    return page.getvalue()


def test_task_table_shows_decisions_and_accuracies(make_summary):
    summary = make_summary(3)
    summary["tasks"][1] |= {"decision": "reuse-expert", "expert": 0, "group_distances": [0.312], "seconds": 65.0, "parameters_added": 1290}
    summary["accuracy"] = [[0.5], [0.4, 0.8], [0.25, 0.9, 0.6]]
    line = next(line for line in shown(task_table(summary)).splitlines() if "task-1" in line)
    assert "reuse-expert → 0" in line
    assert "0.312 ≤ α" in line
    assert "(α 0.5, β 0.75)" in shown(task_table(summary))
    assert line.split()[-6:] == ["05", "s", "1.3", "k", "0.800", "0.900"]


def test_runs_that_differ_in_a_setting_are_told_apart(make_summary):
    runs = [make_summary(3, alpha=alpha) for alpha in (0.1, 0.2)]
    page = io.StringIO()
    print_comparison(Console(file=page, width=200), runs, None)
    text = " ".join(page.getvalue().split())
    # The divergences, the decisions, and the row of the comparison.
    assert [text.count(f"par (alpha {alpha})") for alpha in ("0.1", "0.2")] == [3, 3]


def test_names_are_never_markup(make_summary, make_distances, nasty):
    result = make_distances(8, nasty)
    for table in (task_table(make_summary(8, names=nasty)), divergence_table(result), decision_table(result)):
        text = shown(table)
        assert "[bold red]zebra[/bold red]" in text
        assert "\x1b[31m" not in text
        assert "w" * 90 not in text
    assert "[red]m[/red]" in shown(comparison_table([make_summary(2, method="[red]m[/red]")]))


def test_methods_that_decide_nothing_have_no_decision_columns(make_summary):
    text = shown(task_table(make_summary(3, method="finetune", decides=False)))
    assert "decision" not in text
    assert "nearest" not in text


def test_comparison_puts_seeds_together(make_summary):
    runs = [make_summary(4, seed=seed) | {"ap": ap} for seed, ap in ((0, 0.8), (1, 0.9))]
    lines = shown(comparison_table([*runs, make_summary(4, method="finetune", decides=False, complete=False)])).splitlines()
    par = next(line for line in lines if line.strip().startswith("par"))
    assert "0.850 ± 0.071" in par
    assert any("finetune, unfinished" in line for line in lines)


def test_comparison_tells_configurations_apart(make_summary):
    lines = shown(comparison_table([make_summary(2, alpha=0.5), make_summary(2, alpha=0.3)]))
    assert "par (alpha 0.5)" in lines
    assert "par (alpha 0.3)" in lines


def test_result_of_no_task_yet(make_summary):
    text = shown(result_table(make_summary(0, complete=False)))
    assert "unfinished" in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize("tasks", [1, 6, 100])
def test_distances_of_few_and_many_tasks(make_distances, tasks):
    result = make_distances(tasks)
    text = shown(divergence_table(result))
    assert f"task-{tasks - 1}" in text
    last = [value for value in result["divergences"][-1] if value is not None]
    if last:
        assert f"{min(last):.3f}" in text


def test_distances_of_decisions_without_a_run(make_distances):
    result = make_distances(2)
    result["decisions"][1] |= {"decision": "reuse-cell", "group": 0, "group_distances": [0.7]}
    line = next(line for line in shown(decision_table(result)).splitlines() if "task-1" in line)
    assert "0.700 ≤ β 0.75" in line
    assert "reuse-cell of group 0" in line
    result["decisions"][1] |= {"decision": "search", "group_distances": [0.8]}
    line = next(line for line in shown(decision_table(result)).splitlines() if "task-1" in line)
    assert line.split()[-1] == "search"


def test_eighty_columns_are_enough(make_summary, make_distances):
    """Names of up to a dozen letters fit on one line with every number."""
    names = [f"some-name-{index:02d}" for index in range(8)]
    for table in (
        task_table(make_summary(8, names=names)),
        divergence_table(make_distances(8, names)),
        decision_table(make_distances(8, names)),
    ):
        text = shown(table, width=80)
        assert all(name in text for name in names)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80
