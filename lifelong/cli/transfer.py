"""The command that measures transfer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lifelong import api
from lifelong.cli import tables
from lifelong.cli.commands import (
    ConfigFlag,
    JsonFlag,
    PresetFlag,
    StreamFlag,
    Where,
    WhereFlags,
    app,
    console_progress,
    own_process,
    run_flag,
    show,
)
from lifelong.cli.flags import LIST, ONE, given, make_flags
from lifelong.settings.transfer import DEFAULT_STRATEGIES

WHERE = Where()
PAIRS = make_flags(methods=["par"])()
if TYPE_CHECKING:
    PairFlags = Any
else:
    PairFlags = Annotated[type(PAIRS), Parameter(name="*")]


@app.command(usage="Usage: lifelong transfer STREAM [FLAGS]")
def transfer(
    stream: StreamFlag = None,
    *,
    strategies: Annotated[
        list[str] | None,
        run_flag(
            "how a task is learned with the help of another's expert, separated by commas: share it by distillation, fine-tune a copy, "
            "train a head on it, or a new expert of its cell; rules share by the first [default: share,fine-tune,head]"
        ),
        LIST,
    ] = None,
    measures: Annotated[
        list[str] | None,
        run_flag("measures of relatedness, separated by commas [default: all that can be computed on this stream]"),
        LIST,
    ] = None,
    seeds: Annotated[list[int] | None, run_flag("random seeds, separated by commas [default: 0]"), LIST] = None,
    out: Annotated[
        Path | None, run_flag("folder for transfer.json, .csv and .html and what was trained [default: runs/STREAM-transfer]"), ONE
    ] = None,
    preset: PresetFlag = None,
    config: ConfigFlag = None,
    where: WhereFlags = WHERE,
    as_json: JsonFlag = False,
    hyper: PairFlags = PAIRS,
) -> None:
    """Learn every ordered pair of a stream's tasks, and see how well distances predict what is gained. The same command continues."""
    chosen: Any = strategies or DEFAULT_STRATEGIES  # `transfers` refuses other names
    configs = api.transfers(stream, seeds or (0,), chosen, measures, preset=preset, config=config, **given(hyper))
    folder = out or api.default_out(configs[0], "transfer")
    own_process()
    result = api.start_transfer(configs, chosen, measures, folder, where.environment(), console_progress(as_json))
    show(result, as_json, tables.print_transfer, folder / "transfer.html")
