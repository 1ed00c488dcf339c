"""Tasks whose images have other sizes: each is learned, judged, asked, exported and continued in its own."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import lifelong
from lifelong.data.task import Normalization
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import learn_more
from lifelong.experiment.results import read_summary
from lifelong.experiment.run import run
from lifelong.experiment.task_agnostic import Shown, answer, confidence, heads, recognize
from lifelong.learner import Learner
from lifelong.methods.finetune import Finetune
from lifelong.methods.method import LearnedTask, Recognized
from lifelong.settings.baselines import FinetuneSettings, IndependentSettings
from lifelong.settings.run import RunConfig
from lifelong.settings.training import TrainingSettings
from tests.learned import HERE

STREAM = """
[[task]]
name = "small"
source = "digits"
classes = [0, 1]
image_size = 8
[[task]]
name = "large"
source = "digits"
classes = [2, 3]
image_size = 16
"""


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("sizes")
    (place / "two.toml").write_text(STREAM)
    settings, training = IndependentSettings(init_channels=4, backbone="cells"), TrainingSettings(epochs=2, batch_size=32, lr=0.05)
    config = RunConfig(stream=str(place / "two.toml"), method="independent", seed=0, preset="paper", training=training, settings=settings)
    run(config, place / "run", HERE)
    stream = lifelong.open_stream(place / "two.toml")
    for task in stream:
        # Drawn as they are stored, 8 x 8: the learner brings them to each task's size as the stream does.
        for number, image in enumerate(stream.test_at([one.name for one in stream].index(task.name), 8).images):
            file = place / task.name / f"{number:03d}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(image[0].numpy()).save(file)
    return place


@pytest.mark.parametrize(("index", "name"), [(0, "small"), (1, "large")])
def test_an_answer_is_that_of_the_run_in_the_task_s_own_size(learned, index, name):
    learner, test = Learner.load(learned / "run", device="cpu", threads=1), lifelong.open_stream(learned / "two.toml")[index].test
    assert torch.equal(learner.read(learned / name, name), test.images)
    answers = learner.predict(learned / name, name)
    right = [learner.tasks[name].index(answer.label) == label for answer, label in zip(answers, test.labels.tolist(), strict=True)]
    assert sum(right) / len(right) == pytest.approx(read_summary(learned / "run")["accuracy"][1][index])
    assert [answer.label for answer in learner.predict(test.images, name)] == [answer.label for answer in answers]


def test_without_a_name_as_the_run_was_judged(learned):
    learner, free = Learner.load(learned / "run", device="cpu", threads=1), read_summary(learned / "run")["task_agnostic"]
    for index, name in enumerate(("small", "large")):
        found = [answer.task == name for answer in learner.predict(learned / name)]
        assert sum(found) / len(found) == pytest.approx(free["routing"][index])


def test_what_has_one_size_says_so(learned):
    learner = Learner.load(learned / "run", device="cpu", threads=1)
    assert learner.image_sizes == {"small": 8, "large": 16}
    with pytest.raises(LifelongError, match="8 and 16 pixels a side"):
        _ = learner.image_size
    tensor = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(LifelongError, match="name the task"):
        learner.predict(tensor)
    with pytest.raises(LifelongError, match=r"uint8 of shape \(N, 3, 16, 16\)"):
        learner.predict(tensor, "large")
    with pytest.raises(LifelongError, match=r"float32: this run takes uint8"):
        learner.logits(torch.zeros(2, 3, 16, 16), "large")
    assert lifelong.export(learned / "run", "large", format="torch", out=learned / "large.pt2")["image_size"] == 16


@pytest.mark.parametrize(("option", "size"), [("", 16), ("?size=12", 12)])
def test_a_new_task_has_the_last_one_s_size_or_what_its_address_says(learned, tmp_path, option, size):

    place = shutil.copytree(learned / "run", tmp_path / "run")
    for index, name in enumerate(("small", "large")):
        shutil.copytree(learned / name, tmp_path / "new" / f"class {index}")
    task = f"folder:{tmp_path / 'new'}{option}"
    summary = learn_more(place, task, HERE)
    assert [entry["image_size"] for entry in summary["tasks"]] == [8, 16, size]
    assert learn_more(place, task, HERE) == summary  # known again
    assert Learner.load(place, device="cpu", threads=1).image_sizes["new"] == size


class BySize(Finetune):
    """Says of a task what it reads from the images of a size; its first task has images of 2 x 2 pixels, its second of 4 x 4."""

    def recognize(self, images):
        first = images[:, 0, 0, 0].float() / 255
        return Recognized(torch.stack([first, 1 - first], dim=1), first if images.shape[-1] == 2 else 2 * first)

    def logits(self, images, task_index):
        assert images.shape[-1] == (2, 4)[task_index]
        return images[:, 0, 0, :2].float()


def test_each_task_looks_at_its_own_size():
    method = BySize(FinetuneSettings())
    method.tasks = [LearnedTask(name, 2, Normalization((0.0,) * 3, (1.0,) * 3)) for name in "ab"]
    small, large = torch.zeros(3, 3, 2, 2, dtype=torch.uint8), torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    small[:, 0, 0, 0] = torch.tensor([255, 51, 0])
    large[:, 0, 0, 0] = torch.tensor([255, 204, 51])
    shown = Shown({2: small, 4: large}, (2, 4))
    told = recognize(method, shown)
    # The first task's share comes from the small images, the second's from the large ones.
    torch.testing.assert_close(told.probabilities, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    torch.testing.assert_close(told.strangeness, torch.tensor([1.0, 0.2, 0.0]))
    assert answer(method, shown, told).labels.tolist() == [0, 0, 0]
    assert confidence(heads(method, shown)).shape == (3, 2)
    assert [len(part.of(1)) for part in shown.split(2)] == [2, 1]
