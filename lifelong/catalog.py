"""List and describe streams and methods."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from lifelong.data.stream_like import StreamObjects
from lifelong.methods.registry import known_methods, method_entry
from lifelong.records.descriptions import MethodDescription, MethodListed, Named, SettingDescribed, StreamDescription
from lifelong.settings.arguments import Place, Seed, checked
from lifelong.settings.fields import Setting, as_lists, expected, settings_of
from lifelong.settings.run import Environment, EnvironmentOptions, environment_of
from lifelong.settings.training import TrainingSettings


# `Any`: a `lifelong.data.task.Stream`, whose module imports torch, which checking arguments must not.
@checked
def open_stream(
    name: Place | StreamObjects, seed: Seed = 0, *, environment: Environment | None = None, **options: Unpack[EnvironmentOptions]
) -> Any:
    """Open a stream by its name or from its TOML file, or make one of tasks.

    Args:
        name: name or address of a stream, path of a TOML file, or a list of tasks (`Task.from_arrays`, `Task.from_dataset`).
        seed: random seed of the stream's draws.
        environment: where data are; by default `Environment()`.
        options: fields of the `Environment`; they override those of `environment`.

    Raises:
        LifelongError: the stream does not exist, its file is not valid, or its images are missing.
    """
    place = environment_of("open_stream", environment, options)
    from lifelong.data.sources import Sources
    from lifelong.streams.named_streams import open_stream as open_by_name

    sources = Sources(place.data, place.download, skip_broken=place.skip_broken)
    if not isinstance(name, (str, os.PathLike)):
        from lifelong.streams.objects import keep_stream

        name = keep_stream(name, sources.cache)
    return open_by_name(str(name), seed, sources)


def list_streams() -> list[Named]:
    """List the known streams: "name" and "text"."""
    from lifelong.streams.named_streams import stream_names

    return [{"name": name, "text": text} for name, text in stream_names().items()]


@checked
def describe_stream(
    name: Place | StreamObjects, seed: Seed = 0, *, environment: Environment | None = None, **options: Unpack[EnvironmentOptions]
) -> StreamDescription:
    """Describe the tasks of a stream and check its images.

    Your own images are read, once as long as their files stay the same; those of named sources are not decoded.

    Args:
        name, seed, environment, options: see `open_stream`.

    Returns:
        "name", "seed", "fingerprint", "checksum" (see `lifelong.streams.checksums`), "check": sentences about the images (see
        `lifelong.streams.check`), and "tasks": for each task its "name", "source", "licence", "classes", images per split, ...
    """
    return _described(open_stream(name, seed, environment=environment_of("describe_stream", environment, options)), seed)


@checked
def preview_stream(
    name: Place | StreamObjects,
    out: Place,
    seed: Seed = 0,
    *,
    environment: Environment | None = None,
    progress: bool = True,
    **options: Unpack[EnvironmentOptions],
) -> StreamDescription:
    """Draw a contact sheet of a stream: one row per task, with images of its test split as they are evaluated.

    Args:
        name, seed, environment, options: see `open_stream`.
        out: PNG file; its folder is created, and an existing file is replaced.
        progress: whether to show progress on stderr in a terminal.

    Returns:
        What `describe_stream` returns.

    Raises:
        LifelongError: an argument is not usable, or the file cannot be written.
    """
    place = environment_of("preview_stream", environment, options)
    from lifelong.experiment.counting import along
    from lifelong.report.contact import check_path, contact_sheet, plan
    from lifelong.streams.preview import evaluation_images

    check_path(Path(out))
    stream = open_stream(name, seed, environment=place)
    described = _described(stream, seed)
    chosen = plan(described)
    images = evaluation_images(stream, chosen)
    contact_sheet(described, along(images, len(chosen)) if progress else images, Path(out))
    return described


# `Any`: as of `open_stream`.
def _described(stream: Any, seed: int) -> StreamDescription:
    from lifelong.streams.check import data_check
    from lifelong.streams.checksums import compare as compare_checksum

    tasks = [asdict(task) for task in stream.describe()]
    checksum = stream.checksum()
    return {
        "name": stream.name,
        "seed": seed,
        "fingerprint": stream.fingerprint(),
        "checksum": {"labels": checksum.labels, "draws": checksum.draws, "verdict": compare_checksum(stream.name, seed, checksum)},
        "check": data_check(stream, look_at_named=False),
        "tasks": as_lists(tasks),
    }


def list_methods() -> list[MethodListed]:
    """List the registered methods: "name", "summary" and "source" (the paper)."""
    return [{"name": entry.name, "summary": entry.summary, "source": entry.source} for entry in known_methods().values()]


@checked
def describe_method(name: str) -> MethodDescription:
    """Describe a method and all its settings: for each "name", "flag", "accepts", "default" and "help".

    Raises:
        LifelongError: no method has this name.
    """
    entry = method_entry(name)
    own, training = ([_describe_setting(item) for item in settings_of(cls).values()] for cls in (entry.settings, TrainingSettings))
    return {"name": entry.name, "summary": entry.summary, "source": entry.source, "settings": own, "training": training}


def _describe_setting(item: Setting) -> SettingDescribed:
    return {"name": item.name, "flag": item.flag, "accepts": expected(item.hint), "default": as_lists(item.default), "help": item.help}
