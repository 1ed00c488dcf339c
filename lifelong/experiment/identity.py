"""By what a run knows itself again: everything that decides its numbers, by name."""

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
"""Of the form of saved states; raised when those of older forms can no longer be read (docs/compatibility.md)."""

READS = {2: "0.1"}
"""The forms that this version reads, each with the first version of the library that wrote it."""

OF_IMAGES = ("stream images", "extractor weights", "extractor digest")
"""The keys of an identity that are checksums of what a run was given."""


def difference(stored: Mapping[str, Any], current: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """Return the first key in which two identities differ; None: they are of one run.

    Args:
        stored: of a run that was begun.
        current: of the one that is wanted.
        defaults: what a key means that the run does not have, because an earlier version of the library began it.
    """
    stored = json.loads(json.dumps(dict(defaults))) | dict(stored)
    current = json.loads(json.dumps(dict(current)))
    keys = dict.fromkeys([*current, *stored])
    return next((key for key in keys if key != RECORDED and stored.get(key) != current.get(key)), None)


def config_of(identity: Mapping[str, Any], methods: Mapping[str, type[Any]]) -> RunConfig:
    """Return the configuration that an identity was made of.

    Args:
        identity: of a run.
        methods: every known method's settings class by the method's name.

    Raises:
        LifelongError: it cannot be told.
    """
    values = {key: value for key, value in identity.items() if key not in (*OF_IMAGES, RECORDED, "version")}
    run = [values.pop(key, None) for key in ("stream", "method", "seed", "preset")]
    config = resolve(*run, None, values, methods=methods, presets=False)
    wrong = misfit(config, identity)
    if wrong is not None:
        raise LifelongError(f"the identity of the run cannot be read back: {wrong}; restore config.toml from a copy of the run")
    return config


def misfit(config: RunConfig, identity: Mapping[str, Any]) -> str | None:
    """Return what a configuration says otherwise than the identity of its run, in words; None: nothing."""
    stored = {key: value for key, value in identity.items() if key not in (*OF_IMAGES, "version")}
    key = difference(stored, flat(config), default_values(config))
    return None if key is None else f"{key} = {flat(config).get(key)!r}, not {stored.get(key, default_values(config).get(key))!r}"


def check_readable(path: Path, identity: Mapping[str, Any]) -> None:
    """See that a run's state is of a form that this version reads.

    Args:
        path: the run directory.
        identity: of the run.

    Raises:
        LifelongError: it is not; the line names the version that can.
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
