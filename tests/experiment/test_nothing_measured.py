"""A run with a measure of relatedness that its variant never asks for is opened again."""

from pathlib import Path

import lifelong

STREAM = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"


def test_a_measure_that_is_not_asked(tmp_path: Path) -> None:
    words = {"preset": "quick", "epochs": 1, "init_channels": 2, "variant": "fixed", "measure": "knn-kl", "keep_features": True}
    lifelong.run(STREAM, "par", out=tmp_path, threads=1, device="cpu", progress=False, **words)
    assert len(lifelong.Learner.load(tmp_path, threads=1).tasks) == 2
    assert lifelong.verify(tmp_path).sound
    assert len(lifelong.learn(tmp_path, "digits", name="all", threads=1, device="cpu", progress=False).tasks) == 3
