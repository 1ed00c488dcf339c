"""The command that makes the paper's tables and figures."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lifelong.cli.commands import EngineFlag, JsonFlag, Where, WhereFlags, WorkersFlag, app, own_process
from lifelong.cli.flags import LIST, ONE
from lifelong.experiment.console import make_console, result_console
from lifelong.words import counted

WHERE = Where()


def _help(text: str) -> Parameter:
    return Parameter(help=text)


@app.command(usage="Usage: lifelong reproduce table1|table2|table3|table4|table5|figure3|figure4|figure5|figure6 [FLAGS]")
def reproduce(
    what: Annotated[str, _help("a table (table1 to table5) or a figure (figure3 to figure6) of the paper")],
    /,
    *,
    scale: Annotated[str, _help("paper (days on a GPU), small (a table in about an hour on a CPU), tiny, or a TOML file of your own"), ONE],
    methods: Annotated[list[str] | None, _help("only these rows, separated by commas"), LIST] = None,
    streams: Annotated[list[str] | None, _help("only these streams, separated by commas"), LIST] = None,
    seeds: Annotated[
        list[int] | None, _help("random seeds, separated by commas; every row runs once per seed [default: 0,1,2]"), LIST
    ] = None,
    without: Annotated[list[str] | None, _help("skip tasks that use these sources, for example if you do not have svhn"), LIST] = None,
    out: Annotated[Path | None, _help("folder for the runs, tables and figures [default: runs/reproduction-SCALE]"), ONE] = None,
    where: WhereFlags = WHERE,
    workers: WorkersFlag = 1,
    engine: EngineFlag = "local",
    tolerance: Annotated[
        float | None, _help("largest difference of AP and AF that counts as agreement, at scale paper [default: 0.02]"), ONE
    ] = None,
    ledger: Annotated[Path | None, _help("CSV file to append one row to for every number of a table"), ONE] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rebuild a table or figure of the paper next to the paper's numbers. If interrupted, the same command continues."""
    from lifelong.reproduction import make as reproduction
    from lifelong.reproduction.plan import SEEDS, Choice, check_seeds
    from lifelong.reproduction.scales import read_scale
    from lifelong.reproduction.table_values import TOLERANCE, check_tolerance

    reproduction.check_what(what)
    chosen = (tuple(names or ()) for names in (methods, streams, without))
    choice = Choice(read_scale(scale), check_seeds(SEEDS if seeds is None else seeds), *chosen)
    progress = make_console(stderr=as_json)

    def say(line: str) -> None:
        progress.print(line, markup=False, highlight=False, soft_wrap=True)

    own_process()
    made = reproduction.make(
        what,
        choice,
        out or reproduction.default_out(choice),
        where.environment(),
        say,
        tolerance=check_tolerance(TOLERANCE if tolerance is None else tolerance),
        ledger=ledger,
        workers=workers,
        engine=engine,
    )
    if as_json:
        print(json.dumps(made.as_dict(), indent=1))
        return
    from lifelong.report.tables import grid_table

    console = result_console()
    for title, grid in made.grids:
        console.print(grid_table(title, grid))
    for line in (made.said, *made.notes, f"page: {made.page}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if made.ledger_rows is not None:
        console.print(f"{counted(made.ledger_rows, 'row')} added to {ledger}", markup=False, highlight=False, soft_wrap=True)
