"""The commands about the versions of a run: history, rollback, compact, forget."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from lifelong.cli import tables
from lifelong.cli.commands import JsonFlag, app, run_flag, show
from lifelong.cli.flags import ONE
from lifelong.cli.use import RunArgument


@app.command(usage="Usage: lifelong history RUN [FLAGS]")
def history(run: RunArgument, /, *, as_json: JsonFlag = False) -> None:
    """List the versions of a run that can be put back, and what each task did to the ones before it."""
    from lifelong.experiment.versions import history as versions_of

    show([asdict(version) for version in versions_of(run)], as_json, tables.print_history)


@app.command(usage="Usage: lifelong rollback RUN --to N [FLAGS]")
def rollback(
    run: RunArgument, /, *, to: Annotated[int, run_flag("the version, as `lifelong history` numbers them"), ONE], as_json: JsonFlag = False
) -> None:
    """Put a run back into an earlier version; what was learned since is dropped when it learns again."""
    from lifelong.experiment.versions import rollback as put_back

    show([asdict(put_back(run, to))], as_json, tables.print_history)


@app.command(usage="Usage: lifelong compact RUN [FLAGS]")
def compact(
    run: RunArgument,
    /,
    *,
    keep: Annotated[int | None, run_flag("versions that can still be put back [default: all]"), ONE] = None,
    as_json: JsonFlag = False,
) -> None:
    """Drop what no version of a run needs any more."""
    from lifelong.experiment.versions import compact as made_smaller

    show(asdict(made_smaller(run, keep)), as_json, tables.print_compacted)


@app.command(usage="Usage: lifelong forget RUN --task NAME [FLAGS]")
def forget(
    run: RunArgument,
    /,
    *,
    task: Annotated[str, run_flag("name of the task")],
    dry_run: Annotated[bool, run_flag("only say what would be removed"), Parameter(negative="", show_default=False)] = False,
    as_json: JsonFlag = False,
) -> None:
    """Forget a task that has its expert to itself; all other answers stay as they are, to the bit."""
    from lifelong.experiment.forgetting import forget as forgotten

    show(asdict(forgotten(run, task, dry_run)), as_json, tables.print_forgotten, not dry_run)
