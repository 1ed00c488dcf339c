"""The commands that use a run: predict, learn one more task, export, report, verify."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lifelong import api
from lifelong.cli import tables
from lifelong.cli.commands import (
    RUN,
    DataFlag,
    DeviceFlag,
    DownloadFlag,
    DryRunFlag,
    JsonFlag,
    ObserveFlag,
    SkipBrokenFlag,
    TensorBoardFlag,
    Where,
    WhereFlags,
    app,
    console_progress,
    own_process,
    run_flag,
    show,
)
from lifelong.cli.flags import ONE
from lifelong.errors import LifelongError, one_line

RunArgument = Annotated[Path, Parameter(help="run directory")]
HubRunArgument = Annotated[Path, Parameter(help="run directory, or hub:OWNER/NAME for a run on the Hugging Face Hub")]
WeightsFlag = Annotated[Path | None, run_flag("safetensors file with the feature extractor's weights [default: $LIFELONG_WEIGHTS]"), ONE]

WHERE = Where()

DAMAGED = 1
"""The exit code of `verify` for a run that is not what was written."""

EMPTY = ("task", "label", "probability", "classes", "tasks", "strange")
"""The keys that have no value for an unusable image."""


@app.command(usage="Usage: lifelong predict RUN IMAGE ... [FLAGS]")
def predict(
    run: HubRunArgument,
    /,
    *images: Annotated[Path, Parameter(help="image files, or folders of them")],
    task: Annotated[str | None, run_flag("task of the images; without it, the task of each image is inferred"), ONE] = None,
    infer: Annotated[
        Literal["auto", "method", "confidence"],
        run_flag("how to infer the task: the method's own way (PAR: prototypes), head confidence, or auto (the first available)"),
    ] = "auto",
    weights: WeightsFlag = None,
    device: DeviceFlag = "auto",
    download: DownloadFlag = False,
    skip_broken: SkipBrokenFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Classify images, with probabilities, and flag those that are unlike anything the run has learned.

    Unusable images in a folder are named and skipped.
    """
    from lifelong.data.files import find_images
    from lifelong.data.given import given_images
    from lifelong.experiment.counting import counted
    from lifelong.learner import Learner
    from lifelong.training.denormals import flush_denormals
    from lifelong.training.process import as_found

    if not images:
        raise LifelongError(f"predict: no images given; usage: lifelong predict {run} IMAGE ...")
    own_process()
    rows = []
    with as_found():
        # As a run does.
        flush_denormals()
        learner = Learner.load(run, weights=weights, device=device, download=download)
        for note in learner.notes:
            print(f"note: {one_line(note)}", file=sys.stderr)
        given = given_images(images)
        with counted(len(given), "images") as tell:
            for name, answer in learner.predict_each(given, task, infer=infer, skip_broken=skip_broken, tell=tell):
                if isinstance(answer, str):
                    rows.append({"image": name} | dict.fromkeys(EMPTY) | {"error": answer})
                else:
                    rows.append({"image": name} | asdict(answer) | {"error": None})
    passed = [f"{place}: {said}" for place in images if (said := find_images(place)[1])]
    show(rows, as_json, tables.print_predictions)
    for line in passed:
        print(one_line(line), file=sys.stderr)


@app.command(usage="Usage: lifelong learn RUN --task folder:PATH [FLAGS]")
def learn(
    run: RunArgument,
    /,
    *,
    task: Annotated[str, run_flag("images of the new task: folder:PATH with a folder for each class, csv:FILE, hub:ID, ..."), ONE],
    name: Annotated[str | None, run_flag("name of the new task [default: last part of its address]"), ONE] = None,
    where: WhereFlags = WHERE,
    tensorboard: TensorBoardFlag = False,
    observe: ObserveFlag = None,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Learn one more task in a finished run. If interrupted, the run stays valid, and the same command continues."""
    own_process()
    if dry_run:
        found = api.start_learning_estimate(run, task, name, where.environment(), console_progress(as_json))
        show(found, as_json, tables.print_estimate)
        return
    summary = api.start_learning(run, task, name, where.environment(tensorboard, observe), console_progress(as_json))
    show(summary, as_json, tables.print_run, run / "report.html")


@app.command(usage="Usage: lifelong export RUN --task NAME | --all | --bundle DIR [FLAGS]")
def export(
    run: RunArgument,
    /,
    *,
    task: Annotated[str | None, run_flag("task whose network to export"), ONE] = None,
    every: Annotated[
        bool, Parameter(name="--all", group=RUN, help="export the networks of all tasks in one file", negative="", show_default=False)
    ] = False,
    format: Annotated[Literal["onnx", "torch"], run_flag("file format: an ONNX model, or a torch.export program")] = "onnx",
    out: Annotated[Path | None, run_flag("output file [default: RUN/exports/TASK.onnx or .pt2]"), ONE] = None,
    bundle: Annotated[
        Path | None,
        run_flag("export everything to a folder that predicts without PyTorch: networks, names, task recognition"),
        ONE,
    ] = None,
    weights: WeightsFlag = None,
    data: DataFlag = None,
    download: DownloadFlag = False,
    skip_broken: SkipBrokenFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Export a task's network for use without this library: uint8 images in, logits out, normalization included.

    With --bundle, everything that the run has learned. A bundle is checked on the run's test images, for which --weights, --data and
    --download say where things are, as for a run.
    """
    from lifelong.exports import export as write_export
    from lifelong.exports import export_all

    if (task is not None) + every + (bundle is not None) != 1:
        raise LifelongError(f"export: give either a task or all; usage: lifelong export {run} --task NAME, --all, or --bundle DIR")
    if bundle is not None:
        if out is not None or format != "onnx":
            raise LifelongError("export: --bundle writes ONNX files into its own folder; leave out --out and --format")
        made = write_export(run, bundle=bundle, weights=weights, data=data, download=download, skip_broken=skip_broken)
        show(made, as_json, tables.print_export_bundle)
    elif task is None:
        show(export_all(run, format=format, out=out), as_json, tables.print_export_all)
    else:
        show(write_export(run, task, format=format, out=out), as_json, tables.print_export)


@app.command(usage="Usage: lifelong report RUN [FLAGS]")
def report(
    run: RunArgument,
    /,
    *,
    data: DataFlag = None,
    device: DeviceFlag = "auto",
    download: DownloadFlag = False,
    skip_broken: SkipBrokenFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the report of a run again, with pictures of its worst mistakes if the images can be read."""
    from lifelong.reporting import write_report

    found = write_report(run, data=data, device=device, download=download, skip_broken=skip_broken)
    show(found, as_json, tables.print_report)


@app.command(usage="Usage: lifelong verify RUN [FLAGS]")
def verify(
    run: RunArgument,
    /,
    *,
    judge: Annotated[
        bool, run_flag("also judge every task again from its test images"), Parameter(negative="", show_default=False)
    ] = False,
    repair: Annotated[
        bool,
        run_flag("restore the last good state, rewrite the files that follow from it, and drop what can be computed again"),
        Parameter(negative="", show_default=False),
    ] = False,
    data: DataFlag = None,
    device: DeviceFlag = "auto",
    download: DownloadFlag = False,
    skip_broken: SkipBrokenFlag = False,
    as_json: JsonFlag = False,
) -> int:
    """Check that a run is what was written: every file by its digest, the configuration, all numbers. Exit code 1: something is damaged."""
    found = api.verify(run, judge=judge, repair=repair, data=data, device=device, download=download, skip_broken=skip_broken)
    show(found.plain(), as_json, tables.print_verification, repair)
    return 0 if found.sound else DAMAGED
