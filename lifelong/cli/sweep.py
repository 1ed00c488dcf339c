"""The command that carries out a sweep."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lifelong.cli import tables
from lifelong.cli.commands import EngineFlag, JsonFlag, Where, WhereFlags, WorkersFlag, app, console_progress, own_process, run_flag, show
from lifelong.cli.flags import ONE
from lifelong.errors import LifelongError
from lifelong.sweeps.calls import sweep_status
from lifelong.sweeps.carrying import check_plan, start_sweep
from lifelong.sweeps.spec import plan

WHERE = Where()


@app.command(usage="Usage: lifelong sweep SPEC.toml [FLAGS]")
def sweep(
    spec: Annotated[Path, Parameter(help="TOML file with streams, methods, seeds and settings (see docs/sweeps.md, examples/sweep.toml)")],
    /,
    *,
    check: Annotated[
        bool, Parameter(help="only check that all runs can start, and list them; nothing is run", negative="", show_default=False)
    ] = False,
    status: Annotated[
        bool, Parameter(help="only show how far each run is, while the sweep goes on or afterwards", negative="", show_default=False)
    ] = False,
    out: Annotated[
        Path | None, run_flag("folder for the runs and their comparison [default: the file's `out`, else runs/FILE]"), ONE
    ] = None,
    where: WhereFlags = WHERE,
    workers: WorkersFlag = 1,
    engine: EngineFlag = "local",
    as_json: JsonFlag = False,
) -> None:
    """Run methods × streams × seeds × settings, and compare them. If interrupted, the same command continues."""
    if check and status:
        raise LifelongError("--check and --status are two questions; ask one at a time")
    planned = plan(spec, out)
    if status:
        show(sweep_status(spec, out=out), as_json, tables.print_sweep_status)
        return
    own_process()
    if check:
        check_plan(planned, where.environment(), workers, engine)
        found = {"out": str(planned.out), "runs": [run.to_dict() for run in planned.runs]}
        show(found, as_json, tables.print_plan)
        return
    with console_progress(as_json) as listener:
        summaries = start_sweep(planned, where.environment(), listener, workers, engine)
    show(summaries, as_json, tables.print_comparison, planned.out / "report.html")
