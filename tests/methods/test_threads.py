"""Any number of threads may ask a learner at once."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import lifelong
from lifelong.methods.conformance import ConformanceError, check_method
from lifelong.methods.finetune import Finetune
from lifelong.settings.baselines import FinetuneSettings

TINY = "digits?tasks=3&train_per_class=5&valid_per_class=2&test_per_class=2"


@pytest.mark.parametrize("method", ["gpm", "hat"])  # a network for all tasks, with batch norms, or gates too, of each
def test_threads_get_what_each_would_alone(tmp_path, method):
    lifelong.run(TINY, method, preset="quick", init_channels=4, epochs=2, threads=1, device="cpu", out=tmp_path / "run", progress=False)
    learner = lifelong.Learner.load(tmp_path / "run", device="cpu", threads=1)
    images = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    questions = [*learner.tasks, None] * 4
    alone = [learner.predict(images, task) for task in questions]
    kept = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda task: learner.predict(images, task), questions))
    finally:
        sys.setswitchinterval(kept)
    for found, wanted in zip(together, alone, strict=True):
        assert [answer.task for answer in found] == [answer.task for answer in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one.classes == pytest.approx(other.classes, abs=1e-5)


class Remembering(Finetune):
    """Keeps the task in itself between two steps of an answer."""

    name = "remembering"

    def predict(self, inputs, task_index):
        self.now = task_index
        features = self.features(inputs, task_index)
        time.sleep(0.002)  # whatever else takes time here
        return self.heads[self.now](features)


def test_the_conformance_check_finds_a_method_that_keeps_state_in_an_answer():
    settings = FinetuneSettings(init_channels=4, backbone="cells")
    with pytest.raises(ConformanceError, match="where several threads ask at once"):
        check_method(lambda: Remembering(settings))
