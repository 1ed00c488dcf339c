"""A copy of a run for others: what predicting and learning on need, and nothing of the machine or the images that it was learned from.

The copy is a run directory of its own: its identity is written anew and its state saved again, so that every seal in it is right. What is
left behind: images, content hashes of images, curves, figures, exports, locks, unfinished stages, the state of a task earlier. In the
records paths become their last part, and examples of files are cut from the notes on the images. Names of tasks and classes stay: they are
the answers.

`lifelong.json` lists the files of the copy with their digests; whoever downloads it checks them.
"""

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from lifelong import __version__
from lifelong.data.address import parse_address
from lifelong.errors import LifelongError
from lifelong.experiment.added_tasks import AddedTask, read_added, write_added
from lifelong.experiment.derived import entries_of, summary_of
from lifelong.experiment.outcome import write_lines, write_summary
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.saved import SavedRun
from lifelong.opening import MOST_SETTINGS, open_regular, read_json
from lifelong.records.base import Kept, said
from lifelong.settings.resolve import config_toml, flat
from lifelong.storage import Tree, write_text
from lifelong.streams.check import BEGINNING

MANIFEST = "lifelong.json"
"""The list of the files of a published run."""

FORM = 1
"""Of the list."""

FILES = ("config.toml", "summary.json", "results.jsonl", "checkpoint/*")
"""Patterns of the files of a published run, besides the list itself and the card."""

_PATH = re.compile(r"(?:(?<![A-Za-z0-9])[A-Za-z]:[\\/]|\\\\|(?<![\w.:/-])~?/|(?<=[:=])~?/(?!/)|(?<![\w.-])\.\.?/)[^\s'\",;()<>|]+")
"""A path in a text: absolute, or relative to a home, this or the upper folder."""

_IMAGE = re.compile(r"[^\s'\",;:()<>|]+\.(?:png|jpe?g|jfif|gif|bmp|tiff?|webp|p[bgpn]m|tga|avif|heic)\b", re.IGNORECASE)
"""The name of a file that holds an image."""

_EXAMPLES = re.compile(r"(?:: |,? such as |, for example ).*")
"""Where a note on images begins to name some."""


class _File(Kept):
    sha256: str
    bytes: int


class Manifest(Kept):
    """The list of the files of a published run.

    Attributes:
        form: of the list.
        library: the version that wrote it.
        files: size and SHA-256 digest of each file, by its path with forward slashes.
    """

    form: int
    library: str
    files: dict[str, _File]


def publish(saved: SavedRun, folder: Path) -> None:
    """Write the copy of a run for others into an empty folder, without the list of its files.

    Raises:
        LifelongError: what was learned holds images, or the folder cannot be written.
    """
    where = saved.directory.path
    _refuse_images(where, saved)
    stream = public_stream(saved.config.stream)
    # An extractor may be named by the path of its file.
    texts = {key: scrubbed(value) for key, value in flat(saved.config).items() if isinstance(value, str) and key != "stream"}
    config = replace(saved.config.with_values(texts), stream=stream)
    state = {key: value for key, value in saved.state.items() if key not in ("contents", "identity")}
    state = scrubbed({**state, "method": None}) | {"method": state["method"], "contents": []}
    copy = RunDirectory(folder)
    copy.write_identity(scrubbed(saved.identity | {"stream": stream}))
    write_text(folder / "config.toml", config_toml(config))
    added = [AddedTask(**scrubbed(asdict(task)) | {"content": ""}) for task in read_added(saved.directory) if task.name in saved.names]
    if added:
        write_added(copy, added)
        state["added"] = [asdict(task) for task in added]
    kept = summary_of(state, saved.summary(), saved.method)
    assert kept is not None
    state["summary"] = {key: None if key in ("tasks", "accuracy") else value for key, value in scrubbed(kept.to_dict()).items()}
    copy.save(state)
    final = summary_of(state, None, saved.method)
    assert final is not None
    write_lines(copy, entries_of(state), state["accuracy"])
    write_summary(copy, final, entries_of(state), state["accuracy"])


def public_stream(name: str) -> str:
    """Return the name of a stream without the folders of the machine: of a path only its last part."""
    try:
        address = parse_address(name, stream=True)
    except LifelongError:
        return _last(name)
    if address.kind == "hub" or (address.kind == "named" and not name.endswith(".toml")):
        return name
    return _last(name) if address.kind == "named" else name.replace(address.where, _last(address.where), 1)


def _last(path: str) -> str:
    return PureWindowsPath(PurePosixPath(path).name).name or "stream"


# `Any`: a tree of plain values and tensors.
def scrubbed(value: Any) -> Any:
    """Return plain values with the paths in their texts cut to the last part, and without the examples in notes on images."""
    if isinstance(value, str):
        return _scrub(value)
    if isinstance(value, dict):
        return {key: scrubbed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(scrubbed(item) for item in value)
    return value


def _scrub(text: str) -> str:
    text = _PATH.sub(lambda found: _last(found.group().rstrip("/\\.:")), text)
    if text.startswith(BEGINNING):
        # The kind of a problem and how often it occurs stay; names of files may say more than their owner knows.
        text = BEGINNING + _EXAMPLES.sub(".", text.removeprefix(BEGINNING))
    return _IMAGE.sub("an image", text)


def _refuse_images(where: Path, saved: SavedRun) -> None:
    """Check that the state holds no images that were learned from."""
    held = _images(saved.state)
    if held:
        raise LifelongError(
            f"{where}: the method '{saved.config.method}' keeps {held:,} images of its tasks, and they would be published with it; "
            "export single tasks instead: lifelong export RUN --all"
        )
    settings = saved.config.settings
    if getattr(settings, "extractor", None) == "pixels" and getattr(settings, "keep_features", False):
        raise LifelongError(
            f"{where}: with extractor pixels, keep_features keeps the images themselves, and they would be published; "
            "learn without keep_features, or export single tasks: lifelong export RUN --all"
        )


def _images(tree: Tree) -> int:
    """Count the images in a tree: whole numbers of one byte, of shape (N, 3, H, W)."""
    if isinstance(tree, Tensor):
        return len(tree) if tree.dtype == torch.uint8 and tree.ndim == 4 and tree.shape[1] == 3 else 0
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return sum(map(_images, inner))


def write_manifest(folder: Path) -> Manifest:
    """Write the list of the files of a published run, with their digests, beside them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): _File(sha256=_digest(path), bytes=path.stat().st_size) for path in paths}
    made = Manifest(form=FORM, library=__version__, files=files)
    write_text(folder / MANIFEST, json.dumps(made.model_dump(), indent=1) + "\n")
    return made


def check_manifest(folder: Path, name: str) -> None:
    """Check that a folder holds the files of a published run, as they were written, and no others where a run's are looked for.

    Args:
        folder: a copy of the published run; files may be links to files.
        name: of the run, for messages.

    Raises:
        LifelongError: the list is missing or unusable, or a file is missing, damaged or not in the list.
    """
    again = "push it again, or download it anew after deleting it from the cache"
    try:
        listed = Manifest.model_validate(read_json(folder / MANIFEST, MOST_SETTINGS))
    except FileNotFoundError:
        raise LifelongError(f"{name} is not a run of lifelong: it has no {MANIFEST}") from None
    except OSError as error:
        raise LifelongError(f"{name}: cannot read {MANIFEST}: {error.strerror}; {again}") from error
    except ValidationError as error:
        raise LifelongError(f"{name}: {MANIFEST}: {said(error)}; {again}") from error
    except ValueError as error:
        raise LifelongError(f"{name}: {MANIFEST} is damaged; {again}") from error
    if listed.form != FORM:
        raise LifelongError(
            f"{name} was pushed by lifelong {listed.library}, in form {listed.form}; this version reads form {FORM}; update it"
        )
    for path, file in listed.files.items():
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or "\\" in path or ".." in parts or ":" in path:
            raise LifelongError(f"{name}: {MANIFEST} names '{path}', which is no file of a run; do not use it")
        place = folder.joinpath(*parts)
        if path == "README.md" and not place.exists():
            continue  # the card is for readers
        try:
            right = place.stat().st_size == file.bytes and _digest(place) == file.sha256
        except OSError as error:
            raise LifelongError(f"{name}: {path} cannot be read ({error.strerror}); {again}") from error
        if not right and path != "README.md":  # people edit the card on the Hub
            raise LifelongError(f"{name}: {path} is not what was pushed: its digest differs; {again}")
    for path in (folder / "checkpoint").rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in listed.files:
            raise LifelongError(f"{name}: {path.relative_to(folder).as_posix()} is not in {MANIFEST}; {again}")


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
