"""A run's identity: everything that decides its numbers, by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifelong import __version__
from lifelong.digests import RECORDED
from lifelong.errors import LifelongError
from lifelong.settings.resolve import default_values, flat, resolve
from lifelong.settings.run import RunConfig

STATE_VERSION = 2
"""Version of the form of saved states; raised when older forms can no longer be read (docs/compatibility.md)."""

READS = {2: "0.1"}
"""The forms that this version reads, each with the first version of the library that wrote it."""

OF_IMAGES = ("stream images", "extractor weights", "extractor digest")
"""The keys of an identity that are checksums of the run's inputs."""


COMMAND = "command"
"""The key of an identity that says which command began the folder, unless it learns the stream (`lifelong.experiment.transfer`)."""


def difference(stored: Mapping[str, Any], current: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """Return the first key in which two identities differ; None if they belong to the same run.

    Args:
        stored: the identity of a run that was started.
        current: the identity of the run that is requested.
        defaults: values of keys that a run lacks if an earlier version of the library started it.
    """
    stored = json.loads(json.dumps(dict(defaults))) | dict(stored)
    current = json.loads(json.dumps(dict(current)))
    keys = dict.fromkeys([*current, *stored])
    return next((key for key in keys if key != RECORDED and stored.get(key) != current.get(key)), None)


def config_of(identity: Mapping[str, Any], methods: Mapping[str, type[Any]]) -> RunConfig:
    """Return the configuration from which an identity was made.

    Args:
        identity: the run's identity.
        methods: settings classes of all known methods, by the method's name.

    Raises:
        LifelongError: it cannot be recovered.
    """
    values = {key: value for key, value in identity.items() if key not in (*OF_IMAGES, RECORDED, COMMAND, "version")}
    run = [values.pop(key, None) for key in ("stream", "method", "seed", "preset")]
    config = resolve(*run, None, values, methods=methods, presets=False)
    wrong = misfit(config, identity)
    if wrong is not None:
        raise LifelongError(f"the identity of the run cannot be read back: {wrong}; restore config.toml from a copy of the run")
    return config


def misfit(config: RunConfig, identity: Mapping[str, Any]) -> str | None:
    """Return the first difference between a configuration and its run's identity, in words; None if there is none."""
    stored = {key: value for key, value in identity.items() if key not in (*OF_IMAGES, COMMAND, "version")}
    key = difference(stored, flat(config), default_values(config))
    return None if key is None else f"{key} = {flat(config).get(key)!r}, not {stored.get(key, default_values(config).get(key))!r}"


def check_readable(path: Path, identity: Mapping[str, Any]) -> None:
    """Check that this version can read the form of a run's state.

    Args:
        path: the run directory.
        identity: the run's identity.

    Raises:
        LifelongError: it cannot; the message names the version that can.
    """
    form = identity.get("version")
    if type(form) is int and form in READS:
        return
    writer = f" ({identity[RECORDED]})" if RECORDED in identity else ""
    newer = isinstance(form, int) and form > STATE_VERSION
    raise LifelongError(
        f"{path} was written by another version of lifelong{writer}, in form {form}; this is {__version__}, which reads form"
        f" {', '.join(map(str, READS))} (since {READS[STATE_VERSION]}); {'update it' if newer else 'use that version, or run again'}"
    )
