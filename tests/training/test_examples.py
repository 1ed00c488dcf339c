import torch
from torch import Tensor

from lifelong.data.task import Split
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples, batched, evaluate
from lifelong.training.fit import fit
from lifelong.training.stages import Stage


def sizes_of(steps: list[int]):
    """A function to two logits, which notes how many inputs it is given at once."""

    def note(inputs: Tensor) -> Tensor:
        steps.append(len(inputs))
        return torch.zeros(len(inputs), 2)

    return note


def test_steps_without_gradients():
    """64 on a CPU; 256, as on every device, where answers depend on the others of their batch."""
    steps: list[int] = []
    assert batched(sizes_of(steps), torch.zeros(300, 4)).shape == (300, 2)
    assert steps == [64, 64, 64, 64, 44]
    steps.clear()
    batched(sizes_of(steps), torch.zeros(300, 4), together=True)
    assert steps == [256, 44]
    steps.clear()
    evaluate(sizes_of(steps), Split(torch.zeros(300, 3, 2, 2, dtype=torch.uint8), torch.zeros(300, dtype=torch.int64)), together=True)
    assert steps == [256, 44]


def test_a_fit_judges_together_what_belongs_together():
    module, steps = torch.nn.Linear(4, 2), []

    def predict(inputs: Tensor) -> Tensor:
        if not module.training:
            steps.append(len(inputs))
        return module(inputs)

    labels = torch.zeros(300, dtype=torch.int64)
    for together, wanted in ((False, [64, 64, 64, 64, 44]), (True, [256, 44])):
        examples = Examples(torch.zeros(8, 4), labels[:8], torch.zeros(300, 4), labels, together=together)
        steps.clear()
        fit(module, examples, predict, TrainingSettings(epochs=1), Stage("train", 0))
        assert steps == wanted
