"""What there is to learn from, and to learn with: streams and methods, listed and described."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lifelong.methods.registry import known_methods, method_entry
from lifelong.places import Place, environment
from lifelong.settings.arguments import Seed, checked
from lifelong.settings.fields import Setting, expected, plain, settings_of
from lifelong.settings.training import TrainingSettings


@checked
def open_stream(name: Place, seed: Seed = 0, *, data: Place | None = None, download: bool = False, skip_broken: bool = False) -> Any:
    """A stream by its name or from its TOML file.

    Args:
        name: a known stream's name, or the path of a TOML file.
        seed: of the stream's draws.
        data: folder with one folder per image source; by default the variable LIFELONG_DATA.
        download: fetch missing images from the hub.
        skip_broken: leave out images that cannot be used, instead of failing.

    Raises:
        LifelongError: there is no such stream, its file is wrong, or its images are missing.
    """
    from lifelong.data.sources import Sources
    from lifelong.streams.named_streams import open_stream as open_by_name

    place = environment(data, download=download)
    return open_by_name(str(name), seed, Sources(place.data, place.download, skip_broken=skip_broken))


def list_streams() -> list[dict[str, Any]]:
    """The known streams: "name" and "text"."""
    from lifelong.streams.named_streams import stream_names

    return [{"name": name, "text": text} for name, text in stream_names().items()]


@checked
def describe_stream(
    name: Place, seed: Seed = 0, *, data: Place | None = None, download: bool = False, skip_broken: bool = False
) -> dict[str, Any]:
    """What the tasks of a stream hold, and a check of its images.

    Images of one's own are looked at, once for as long as their files stay the same; of the catalogue's sources none is decoded.

    Args:
        name, seed, data, download, skip_broken: see `open_stream`.

    Returns:
        "name", "seed", "fingerprint", "checksum" (see `lifelong.streams.checksums`), "check": sentences about the images (see
        `lifelong.streams.check`), and "tasks": for each its "name", "source", "licence", "classes", images per split, ...
    """
    return _described(open_stream(name, seed, data=data, download=download, skip_broken=skip_broken), seed)


@checked
def preview_stream(
    name: Place,
    out: Place,
    seed: Seed = 0,
    *,
    data: Place | None = None,
    download: bool = False,
    skip_broken: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Draw a contact sheet of a stream: one row a task, with images of its test split as they are evaluated.

    Args:
        name, seed, data, download, skip_broken: see `open_stream`.
        out: the PNG file; its folder is made, and a file that is there is replaced.
        progress: whether a terminal shows how far it is, on stderr.

    Returns:
        What `describe_stream` returns.

    Raises:
        LifelongError: something given cannot be used, or the file cannot be written.
    """
    from lifelong.experiment.counting import along
    from lifelong.report.contact import check_path, contact_sheet, plan
    from lifelong.streams.preview import evaluation_images

    check_path(Path(out))
    stream = open_stream(name, seed, data=data, download=download, skip_broken=skip_broken)
    described = _described(stream, seed)
    chosen = plan(described)
    images = evaluation_images(stream, chosen)
    contact_sheet(described, along(images, len(chosen)) if progress else images, Path(out))
    return described


def _described(stream: Any, seed: int) -> dict[str, Any]:
    from lifelong.streams.check import data_check
    from lifelong.streams.checksums import compare as compare_checksum

    tasks = [asdict(task) for task in stream.describe()]
    checksum = stream.checksum()
    return {
        "name": stream.name,
        "seed": seed,
        "fingerprint": stream.fingerprint(),
        "checksum": asdict(checksum) | {"verdict": compare_checksum(stream.name, seed, checksum)},
        "check": data_check(stream, look_at_named=False),
        "tasks": plain(tasks),
    }


def list_methods() -> list[dict[str, Any]]:
    """The registered methods: "name", "summary" and "source" (the paper)."""
    return [{"name": entry.name, "summary": entry.summary, "source": entry.source} for entry in known_methods().values()]


@checked
def describe_method(name: str) -> dict[str, Any]:
    """A method and all its settings: for each "name", "flag", "accepts", "default" and "help".

    Raises:
        LifelongError: no method has this name.
    """
    entry = method_entry(name)
    groups = {"settings": entry.settings, "training": TrainingSettings}
    head = {"name": entry.name, "summary": entry.summary, "source": entry.source}
    return head | {group: [_describe_setting(item) for item in settings_of(cls).values()] for group, cls in groups.items()}


def _describe_setting(item: Setting) -> dict[str, Any]:
    return {"name": item.name, "flag": item.flag, "accepts": expected(item.hint), "default": plain(item.default), "help": item.help}
