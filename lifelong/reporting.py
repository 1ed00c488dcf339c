"""Write the report of a run again, with pictures of its worst mistakes where the images can be read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from lifelong.data.sources import Sources
from lifelong.data.task import Split, Stream
from lifelong.errors import LifelongError
from lifelong.experiment.grown_stream import images_of
from lifelong.experiment.machine import choose_device, set_threads
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.records.descriptions import ReportWritten
from lifelong.report.html import write_report as write_page
from lifelong.report.mistakes import MOST, Mistake, per_task
from lifelong.settings.arguments import Place, checked
from lifelong.settings.run import Environment, EnvironmentOptions, environment_of
from lifelong.training.denormals import flush_denormals
from lifelong.training.examples import batched
from lifelong.training.precision import exact_float32
from lifelong.training.process import alone


@checked
def write_report(run: Place, *, environment: Environment | None = None, **options: Unpack[EnvironmentOptions]) -> ReportWritten:
    """Write the report of a run again, with pictures of the worst mistakes on each task's test images.

    The test images are classified once more; the run itself stays as it is.

    Args:
        run: directory of a run that has learned at least one task.
        environment: where the images and the device are; by default `Environment()`.
        options: fields of the `Environment`; they override those of `environment`.

    Returns:
        "report", the page; "mistakes", the number of pictures of each task, None for a task whose images cannot be read; and "tasks", the
        names of the tasks.

    Raises:
        LifelongError: the folder holds no run, or its files are damaged or cannot be written.
    """
    place = environment_of("write_report", environment, options)
    with alone("report"):
        saved = open_run(Path(run), choose_device(place.device))
        mistakes = list(_mistakes(saved, place))
        page = write_page(Path(run), saved.summary(), mistakes)
    counts = [None if found is None else len(found) for found in mistakes]
    return {"report": str(page), "tasks": saved.names, "mistakes": counts}


def worst_mistakes(logits: Float[Tensor, "n c"], split: Split, most: int) -> list[Mistake]:
    """Find the wrongly classified images with the highest probability for the wrong class, the worst first.

    Args:
        logits: of the images.
        split: the images, with their labels.
        most: how many to return at most.
    """
    # In float64 several certainties near 1 keep their order.
    sure, given = logits.double().softmax(dim=1).max(dim=1)
    wrong = ((given != split.labels) & sure.isfinite()).nonzero().flatten()
    rows = wrong[sure[wrong].argsort(descending=True, stable=True)][:most]
    return [
        Mistake(split.images[row].permute(1, 2, 0).cpu().numpy().copy(), int(split.labels[row]), int(given[row]), float(sure[row]))
        for row in rows.tolist()
    ]


def _mistakes(saved: SavedRun, place: Environment) -> Iterator[list[Mistake] | None]:
    """Yield the worst mistakes of each task; None where its images cannot be read. Later tasks than the page has room for get none."""
    flush_denormals()
    device = choose_device(place.device)
    set_threads(place.threads, max(entry["image_size"] for entry in saved.entries))
    sources = Sources(place.data, download=place.download, skip_broken=place.skip_broken)
    most = per_task(len(saved.entries))
    with exact_float32(device):
        for index, images in enumerate(images_of(saved, sources)):
            if index >= MOST:
                yield []
                continue
            split = None if images is None else _test(*images)
            yield None if split is None else _of_task(saved, index, split.to(device), most)


def _test(stream: Stream, position: int) -> Split | None:
    """Return the test images of a task; None if they cannot be read."""
    try:
        return stream[position].test
    except LifelongError:
        return None


def _of_task(saved: SavedRun, index: int, split: Split, most: int) -> list[Mistake]:
    logits = batched(lambda images: saved.method.logits(images, index), split.images, together=saved.method.batch_dependent)
    return worst_mistakes(logits, split, most)
