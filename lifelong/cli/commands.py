"""The commands of `lifelong`. Each calls one function of `lifelong.api` and prints the result."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from lifelong import __version__, api
from lifelong.cli import tables
from lifelong.cli.flags import LIST, ONE, given, make_flags
from lifelong.errors import LifelongError
from lifelong.experiment.console import make_console, result_console
from lifelong.methods.registry import known_methods
from lifelong.settings.arguments import Seed, argument
from lifelong.settings.device import ABOUT_DEVICE, Device
from lifelong.settings.presets import ABOUT
from lifelong.settings.run import KEEP_VERSIONS, Environment, split_options
from lifelong.settings.tuning import ABOUT_TUNING

app = App(
    name="lifelong",
    help="Learn a stream of image-classification tasks one at a time, sharing or allocating a small expert network for each. "
    "With --plugin FILE.py, every command also knows the methods that the file registers.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

KNOWN = frozenset(known_methods())
"""The methods whose settings are flags here."""

HYPER = make_flags()()
RELATED = make_flags(
    [
        *(
            "measure",
            "extractor",
            "feature_split",
            "feature_input",
            "leave_one_out",
            "few_images",
            "clamp",
            "zero_is_far",
            "map_before_mean",
            "group_reduce",
        ),
        *("alpha", "beta", "tiny_task", "tiny_task_ratio", "variant"),
    ],
    methods=["par"],
)()
if TYPE_CHECKING:
    HyperFlags = RelatedFlags = Any
else:
    HyperFlags = Annotated[type(HYPER), Parameter(name="*")]
    RelatedFlags = Annotated[type(RELATED), Parameter(name="*")]

RUN = Group("Run", sort_key=0)
ABOUT_PRESETS = "; ".join(f"{name}: {text}" for name, text in ABOUT.items())


def run_flag(help_: str) -> Parameter:
    """Make a flag of the group Run from its help text."""
    return Parameter(group=RUN, help=help_)


StreamFlag = Annotated[
    str | None,
    run_flag("stream name (see: lifelong streams), TOML file, or your own images: folder:PATH with one folder per task"),
    ONE,
]
MethodFlag = Annotated[str | None, run_flag("method name (see: lifelong methods) [default: par]"), ONE]
SeedFlag = Annotated[int | None, run_flag("random seed [default: 0]"), ONE]
PresetFlag = Annotated[str | None, run_flag(f"settings to start from. {ABOUT_PRESETS} [default: paper]"), ONE]
ConfigFlag = Annotated[Path | None, run_flag("flat TOML file with any of these settings; flags override it"), ONE]
DataFlag = Annotated[Path | None, run_flag("folder with one subfolder per image source [default: $LIFELONG_DATA]"), ONE]
DownloadFlag = Annotated[
    bool, Parameter(group=RUN, help="download missing images and weights from the Hugging Face Hub", negative="", show_default=False)
]
SkipBrokenFlag = Annotated[
    bool,
    Parameter(group=RUN, help="skip unusable images instead of stopping", negative="", show_default=False),
]
WorkersFlag = Annotated[
    int, Parameter(group=RUN, help="number of parallel runs, each in its own process; they share the cores, and the GPU or all GPUs"), ONE
]
EngineFlag = Annotated[
    str,
    run_flag(
        "engine that carries out the runs: local (processes of this machine), ray (ray:ADDRESS: a running cluster), slurm (slurm:FILE: "
        "with the #SBATCH lines of a file), or the engine of a plugin"
    ),
    ONE,
]
DeviceFlag = Annotated[Device, run_flag(ABOUT_DEVICE), ONE]
TensorBoardFlag = Annotated[
    bool,
    Parameter(group=RUN, help="also write TensorBoard event files, to RUN/tensorboard", negative="", show_default=False),
]
ObserveFlag = Annotated[
    str | None,
    run_flag("observers to report progress to, separated by commas: tensorboard, wandb, mlflow, or those of a plugin"),
    ONE,
]
DryRunFlag = Annotated[
    bool,
    Parameter(
        group=RUN,
        help="do not run: show tasks, images, checks, parameters, memory and the expected minutes, from a few measured steps",
        negative="",
        show_default=False,
    ),
]
JsonFlag = Annotated[bool, Parameter(name="--json", group=RUN, help="print JSON instead of tables", negative="", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Flags for paths, weights and device.

    Attributes:
        weights: safetensors file with the feature extractor's weights [default: $LIFELONG_WEIGHTS]
        threads: CPU threads; 0: automatic (OMP_NUM_THREADS, else 1 for images up to 16×16, else all cores)
        save_every: seconds between saves of the computation in progress
        keep_versions: number of versions that a run keeps in any case, to be put back; earlier ones go when they take much; 0: all
    """

    data: DataFlag = None
    weights: Annotated[Path | None, ONE] = None
    device: DeviceFlag = "auto"
    threads: Annotated[int, ONE] = 0
    save_every: Annotated[float, ONE] = 5.0
    keep_versions: Annotated[int, ONE] = KEEP_VERSIONS
    download: DownloadFlag = False
    skip_broken: SkipBrokenFlag = False

    def environment(self, tensorboard: bool = False, observe: str | None = None) -> Environment:
        """Return the environment these flags describe."""
        return split_options("", None, vars(self) | {"tensorboard": tensorboard, "observe": observe.split(",") if observe else ()})[0]


WhereFlags = Annotated[Where, Parameter(name="*", group=RUN)]

TUNING = Group("Tuning", sort_key=0)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Flags that say which settings are tuned for each task on its validation images."""

    grid: Annotated[str | None, Parameter(help=ABOUT_TUNING["grid"]), ONE] = None
    tolerance: Annotated[float | None, Parameter(help=ABOUT_TUNING["tolerance"]), ONE] = None
    trials: Annotated[int | None, Parameter(help=ABOUT_TUNING["trials"]), ONE] = None


TuningFlags = Annotated[Tuning, Parameter(name="*", group=TUNING)]


@app.command(usage="Usage: lifelong run [FLAGS]")
def run(
    *,
    stream: StreamFlag = None,
    method: MethodFlag = None,
    seed: SeedFlag = None,
    out: Annotated[Path | None, run_flag("run directory [default: runs/STREAM-METHOD-seedN]"), ONE] = None,
    preset: PresetFlag = None,
    config: ConfigFlag = None,
    where: WhereFlags = Where(),
    tensorboard: TensorBoardFlag = False,
    observe: ObserveFlag = None,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
    hyper: HyperFlags = HYPER,
) -> None:
    """Learn a stream with a method. If interrupted, the same command continues."""
    resolved = api.configured(stream, method, seed, preset=preset, config=config, **given(hyper))
    folder = out or api.default_out(resolved)
    own_process()
    if dry_run:
        show(api.start_estimates([resolved], [folder], where.environment(), console_progress(as_json))[0], as_json, tables.print_estimate)
        return
    summary = api.start(resolved, folder, where.environment(tensorboard, observe), console_progress(as_json))
    show(summary, as_json, tables.print_run, folder / "report.html")


@app.command(usage='Usage: lifelong tune --grid "KEY=VALUE,VALUE,... ..." [FLAGS]')
def tune(
    *,
    tuning: TuningFlags = Tuning(),
    stream: StreamFlag = None,
    method: MethodFlag = None,
    seed: SeedFlag = None,
    out: Annotated[Path | None, run_flag("run directory [default: runs/STREAM-METHOD-tuned-seedN]"), ONE] = None,
    preset: PresetFlag = None,
    config: ConfigFlag = None,
    where: WhereFlags = Where(),
    engine: EngineFlag = "local",
    tensorboard: TensorBoardFlag = False,
    observe: ObserveFlag = None,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
    hyper: HyperFlags = HYPER,
) -> None:
    """Run with hyper-parameters tuned for each task on its validation images. If interrupted, the same command continues."""
    resolved = api.to_tune(api.configured(stream, method, seed, preset=preset, config=config, **given(tuning), **given(hyper)))
    folder = out or api.default_out(resolved)
    own_process()
    if dry_run:
        show(api.start_estimates([resolved], [folder], where.environment(), console_progress(as_json))[0], as_json, tables.print_estimate)
        return
    summary = api.start(resolved, folder, where.environment(tensorboard, observe), console_progress(as_json), engine=engine)
    show(summary, as_json, tables.print_run, folder / "report.html")


@app.command(usage="Usage: lifelong compare [RUN_DIR ...] [FLAGS]")
def compare(
    *runs: Annotated[Path, Parameter(help="directories of finished runs to compare, without running anything")],
    stream: StreamFlag = None,
    methods: Annotated[list[str] | None, run_flag("method names, separated by commas [default: par,finetune,independent]"), LIST] = None,
    seeds: Annotated[
        list[int] | None, run_flag("random seeds, separated by commas; every method runs once per seed [default: 0]"), LIST
    ] = None,
    out: Annotated[Path | None, run_flag("folder for the comparison and its runs [default: runs/STREAM-compare]"), ONE] = None,
    preset: PresetFlag = None,
    config: ConfigFlag = None,
    where: WhereFlags = Where(),
    workers: WorkersFlag = 1,
    engine: EngineFlag = "local",
    tuning: TuningFlags = Tuning(),
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
    hyper: HyperFlags = HYPER,
) -> None:
    """Run several methods and seeds on one stream and compare them, or compare finished runs."""
    if runs:
        if (
            any((stream, methods, seeds, preset, config, given(tuning), given(hyper)))
            or where != Where()
            or (workers, engine) != (1, "local")
            or dry_run
        ):
            raise LifelongError(
                f"compare takes finished runs ({runs[0]}, ...) or the flags of new ones; with finished runs only --out and --json"
            )
        summaries, folder = api.finished(runs, out), out
    else:
        chosen = methods or api.DEFAULT_METHODS, seeds or (0,)
        configs = api.comparison(stream, *chosen, preset=preset, config=config, **given(tuning), **given(hyper))
        folder = out or api.default_out(configs[0], "compare")
        own_process()
        if dry_run:
            # Seeds of one method take equally long.
            first = list({config.method: config for config in reversed(configs)}.values())[::-1]
            outs = [folder / f"{config.method}-seed{config.seed}" for config in first]
            estimates = api.start_estimates(first, outs, where.environment(), console_progress(as_json))
            show(estimates, as_json, tables.print_estimates, len(configs) // len(first), workers)
            return
        summaries = api.start_comparison(configs, folder, where.environment(), console_progress(as_json), workers, engine)
    show(summaries, as_json, tables.print_comparison, None if folder is None else folder / "report.html")


@app.command(usage="Usage: lifelong streams [NAME | FILE.toml] [FLAGS]")
def streams(
    name: Annotated[str | None, Parameter(help="stream name or TOML file; without it, all streams are listed")] = None,
    /,
    *,
    seed: Annotated[int, run_flag("random seed of the stream's draws"), ONE] = 0,
    data: DataFlag = None,
    download: DownloadFlag = False,
    skip_broken: SkipBrokenFlag = False,
    preview: Annotated[Path | None, run_flag("PNG file for a contact sheet of the stream's evaluation images"), ONE] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the streams, or describe one and check its images. Your own images are read once."""
    if name is None:
        if preview is not None:
            raise LifelongError(f"--preview needs a stream: lifelong streams NAME --preview {preview}")
        show(api.list_streams(), as_json, tables.print_streams)
        return
    argument("", "seed", Seed, seed)
    place: dict[str, Any] = {"data": data, "download": download, "skip_broken": skip_broken}
    if preview is None:
        show(api.describe_stream(name, seed, **place), as_json, tables.print_stream)
    else:
        show(api.preview_stream(name, preview, seed, **place), as_json, tables.print_stream, preview)


@app.command(usage="Usage: lifelong methods [NAME] [FLAGS]")
def methods(
    name: Annotated[str | None, Parameter(help="method name; without it, all methods are listed")] = None, /, *, as_json: JsonFlag = False
) -> None:
    """List the methods, or describe one with all its settings."""
    if name is None:
        show(api.list_methods(), as_json, tables.print_methods)
    else:
        show(api.describe_method(name), as_json, tables.print_method)


@app.command(usage="Usage: lifelong distances [FLAGS]")
def distances(
    *,
    stream: StreamFlag = None,
    seed: Annotated[int | None, run_flag("random seed of the stream's draws [default: 0]"), ONE] = None,
    out: Annotated[Path | None, run_flag("folder for distances.json and distances.png [default: runs/STREAM-distances-seedN]"), ONE] = None,
    preset: PresetFlag = None,
    config: ConfigFlag = None,
    where: WhereFlags = Where(),
    as_json: JsonFlag = False,
    related: RelatedFlags = RELATED,
) -> None:
    """Measure how far each task of a stream is from earlier ones, and show what PAR would decide. Nothing is trained."""
    resolved = api.configured(stream, "par", seed, preset=preset, config=config, **given(related))
    folder = out or api.default_out(resolved, "distances")
    own_process()
    result = api.measure(resolved, folder, where.environment(), console_progress(as_json))
    show(result, as_json, tables.print_distances, folder / "distances.png")


def own_process() -> None:
    """Let this process keep freed memory for the next step. Only commands do this: they own their process, a library call does not."""
    from lifelong.training.malloc import keep_freed_memory

    keep_freed_memory()


def show(found: Any, as_json: bool, table: Callable[..., None], *more: Any) -> None:
    """Print a result as JSON or as a table."""
    if as_json:
        print(json.dumps(found, indent=1, default=lambda record: record.to_dict()))
    else:
        table(result_console(), found, *more)


def console_progress(as_json: bool) -> Any:
    """Make the progress display: on stdout, or on stderr where stdout is for JSON."""
    from lifelong.experiment.progress import ConsoleProgress

    return ConsoleProgress(make_console(stderr=as_json))
