"""Suggestions for mistyped flags."""

import difflib
from collections.abc import Sequence

OTHER_NAMES = {
    "--lr": ("learning-rate", "step-size", "rate"),
    "--batch-size": ("bs", "batch", "train-batch-size"),
    "--epochs": ("n-epochs", "num-epochs", "max-epochs", "iterations"),
    "--weight-decay": ("wd", "l2"),
    "--stream": ("dataset", "data-set", "benchmark", "scenario"),
    "--method": ("strategy", "algorithm", "model"),
    "--backbone": ("network", "arch", "architecture"),
    "--device": ("gpu", "cuda", "accelerator", "use-cuda", "no-cuda"),
    "--out": ("output", "output-dir", "out-dir", "save-dir", "log-dir", "save-to"),
    "--seed": ("random-seed", "random-state", "manual-seed"),
    "--seeds": ("random-seeds", "n-seeds"),
    "--workers": ("jobs", "n-jobs", "num-workers", "processes"),
    "--threads": ("n-threads", "num-threads", "cpus"),
    "--data": ("data-dir", "data-path", "data-root", "root"),
    "--init-channels": ("channels", "width"),
    "--precision": ("amp", "fp16", "bf16", "dtype", "mixed-precision"),
}
"""Names that other programs use for our flags."""

ALIKE = 0.75
"""Smallest similarity at which a flag counts as a typo of another (`difflib`'s ratio; 1: equal)."""


def meant_flag(given: str, known: Sequence[str]) -> str | None:
    """Return the flag that was probably meant, or None.

    Args:
        given: what was written, such as "--learning_rate".
        known: the command's flags.
    """
    plain = given.lstrip("-").partition("=")[0].replace("_", "-").lower()
    for flag, names in OTHER_NAMES.items():
        if plain in names and flag in known:
            return flag
    return next(iter(difflib.get_close_matches(f"--{plain}", known, 1, ALIKE)), None)
