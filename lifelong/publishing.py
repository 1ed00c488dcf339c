"""Publish what a run has learned: its model card, and its copy on the Hugging Face Hub."""

import tempfile
from pathlib import Path

from lifelong.errors import LifelongError
from lifelong.experiment.hub_runs import HubRun, hub_run, push_folder
from lifelong.experiment.published import public_stream, publish, scrubbed, write_manifest
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.methods.registry import known_methods
from lifelong.records.descriptions import Pushed
from lifelong.records.run import RunRecord
from lifelong.report.card import About
from lifelong.report.card import model_card as write_card
from lifelong.settings.arguments import Place, checked
from lifelong.storage import write_text
from lifelong.training.process import as_found

CARD = "README.md"


@checked
def model_card(run: Place, *, license: str | None = None, name: str | None = None) -> str:
    """Write the model card of a run as Markdown, with front matter for the Hugging Face Hub.

    It says what was learned, on what, how well, how to use it, and its limits, from the run's record. Paths are cut to their last part.

    Args:
        run: directory of a run that has learned at least one task.
        license: the model's licence as the Hub abbreviates it, such as "apache-2.0"; None: the card names none.
        name: of the model; by default the folder's name.

    Raises:
        LifelongError: the run does not exist or is damaged, or the licence is no such abbreviation.
    """
    with as_found():
        saved = open_run(Path(run))
        called = name or Path(run).resolve().name
        return _card(saved, called, f"runs/{called}", license)


@checked
def push(run: Place, to: str, *, public: bool = False, license: str | None = None) -> Pushed:
    """Upload a copy of a run to the Hugging Face Hub, from where `Learner.load` and ``lifelong predict`` use it.

    The copy holds what predicting and learning on need, with a model card: no images, curves, figures or locks, and no paths of this
    machine (`lifelong.experiment.published`). Names of tasks and classes are in it. An earlier push to the same repository is replaced. The
    token is the one of the Hub's own library (`hf auth login`, or HF_TOKEN).

    Args:
        run: directory of a run that has learned at least one task.
        to: ``hub:OWNER/NAME``; the repository is made if there is none.
        public: whether everybody may see it; by default only its owner.
        license: see `model_card`.

    Returns:
        "id", "url" of the commit, "public", "files" (paths) and "bytes".

    Raises:
        LifelongError: the run is damaged, or keeps images of its tasks; the repository holds something else; the extra ``lifelong[hub]`` is
            missing, or the Hub refuses.
    """
    place = hub_run(to)
    if place is None:
        raise LifelongError(f"push: '{to}' is not a place on the Hub; write hub:OWNER/NAME")
    _check_licence(license)
    with as_found():
        saved = open_run(Path(run))
        with tempfile.TemporaryDirectory(prefix="lifelong-push-") as temporary:
            folder = Path(temporary)
            made = copy_for_others(saved, folder, place, license)
            tasks = f"{len(saved.names)} {'task' if len(saved.names) == 1 else 'tasks'}"
            url = push_folder(folder, place, public=public, message=f"{saved.config.method}: {tasks} learned")
    return {"id": place.id, "url": url, "public": public, "files": sorted(made), "bytes": sum(made.values())}


def copy_for_others(saved: SavedRun, folder: Path, place: HubRun, license: str | None = None) -> dict[str, int]:
    """Write what `push` uploads into an empty folder; returns the bytes of each file by its path."""
    publish(saved, folder)
    write_text(folder / CARD, _card(saved, place.id.partition("/")[2], str(place), license))
    write_manifest(folder)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _card(saved: SavedRun, name: str, run: str, license: str | None) -> str:
    _check_licence(license)
    summary = saved.summary()
    told = RunRecord.model_validate(scrubbed(summary.to_dict()) | {"stream": scrubbed(public_stream(summary.stream))})
    entry = known_methods()[saved.config.method]
    needs = saved.method.extractor()
    about = About(name, run, entry.summary, entry.source, license, needs is not None and needs[0] != "pixels")
    return write_card(told, about)


def _check_licence(license: str | None) -> None:
    if license is not None and not (
        license.isascii() and license.replace("-", "").replace(".", "").isalnum() and license == license.lower()
    ):
        raise LifelongError(
            f"license = {license!r}: expected an abbreviation of the Hub in lower case, such as apache-2.0, mit or cc-by-4.0"
        )
