"""Carry out a sweep: check all runs, run those that are not finished, and write the reports and the comparison."""

from typing import TYPE_CHECKING

from lifelong.settings.run import Environment
from lifelong.sweeps.spec import Plan
from lifelong.words import counted

if TYPE_CHECKING:
    from lifelong.experiment.observer import Observer
    from lifelong.records.run import RunRecord


def check_plan(plan: Plan, place: Environment, workers: int = 1, engine: str = "local") -> None:
    """Check that every run of a sweep can start; nothing is written or trained.

    Raises:
        LifelongError: some cannot, or the engine is not usable.
    """
    from lifelong.training.process import as_found

    with as_found():  # imports draw random numbers, too
        from lifelong.experiment.sweep import check_sweep
        from lifelong.sweeps.checking import check_runs

        check_sweep(workers, engine)
        check_runs(plan, place, here=engine == "local")


def start_sweep(plan: Plan, place: Environment, listener: "Observer", workers: int = 1, engine: str = "local") -> "list[RunRecord]":
    """Carry out a sweep. Where runs fail, those that are finished are compared first.

    Returns:
        The summaries of the runs, in the plan's order.

    Raises:
        SweepError: runs have failed; the others are finished.
        LifelongError: something cannot be used, and nothing was run.
    """
    from lifelong.training.process import alone

    with alone("sweep"):  # imports draw random numbers, too
        from lifelong.experiment.observer import Observer
        from lifelong.experiment.sweep import SweepError, sweep
        from lifelong.report.comparison import write_comparison
        from lifelong.report.html import write_report
        from lifelong.sweeps.status import finished_runs

        check_plan(plan, place, workers, engine)
        runs, summaries = plan.runs, finished_runs(plan)
        one_stream = len({run.name.partition("/")[0] for run in runs}) == 1
        labels = [run.name.partition("/")[2] if one_stream else run.name for run in runs]
        if summaries:
            listener.note(f"{len(summaries)} of {counted(len(runs), 'run')} are finished")
        rest = [position for position in range(len(runs)) if position not in summaries]

        def begin(place: int) -> Observer:
            return listener.beside(labels[rest[place]])

        planned = [(runs[position].config, plan.out / runs[position].name) for position in rest]
        journals = [plan.journal(runs[position]) for position in rest]
        failed, found = None, {}
        try:
            found = dict(sweep(planned, place, workers, begin, engine, journals=journals, tell=listener.note))
        except SweepError as error:
            failed, found = error, error.summaries
        summaries |= {rest[place]: summary for place, summary in found.items()}
        for position, summary in sorted(summaries.items()):
            folder = plan.out / runs[position].name
            # Those of runs that were finished before are there, unless the sweep was stopped before it wrote them.
            if position in rest or not (folder / "report.html").exists():
                write_report(folder, summary)
        if summaries:
            write_comparison(plan.out, [summary for _, summary in sorted(summaries.items())])
        if failed is not None:
            raise failed
    return [summaries[position] for position in range(len(runs))]
