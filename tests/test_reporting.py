"""The report written again: the pictures are of the test images that the run gets wrong."""

import json
import math
from pathlib import Path

import pytest
import torch

import lifelong
from lifelong.cli import main
from lifelong.data.task import Split
from lifelong.learner import Learner
from lifelong.reporting import worst_mistakes
from tests.learned import small_config, small_run


def test_worst_mistakes_by_hand():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2).contiguous()
    split = Split(images, torch.tensor([0, 1, 1, 2, 0]))
    rows = [[2.0, 0.0, 0.0], [0.0, -1.0, 3.0], [0.5, 0.0, 0.0], [9.0, 0.0, 0.0], [math.nan, 0.0, 0.0]]
    found = worst_mistakes(torch.tensor(rows), split, 5)
    # The first is right, the last has no probabilities.
    assert [(one.true, one.given, int(one.image[0, 0, 0])) for one in found] == [(2, 0, 3), (1, 2, 1), (1, 0, 2)]
    assert found[1].probability == pytest.approx(math.exp(3) / (1 + math.exp(-1) + math.exp(3)), abs=1e-6)
    assert [one.true for one in worst_mistakes(torch.tensor(rows), split, 1)] == [2]
    assert found[0].image.shape == (2, 2, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("run"), "finetune")


def test_a_run_s_report(run):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and "figures" not in file.parts}
    made = lifelong.write_report(run, device="cpu", threads=1)
    page = run / "report.html"
    assert made["report"] == str(page)
    learner, stream = Learner.load(run, device="cpu", threads=1), lifelong.open_stream(small_config(run.parent, "finetune").stream)
    for index, (name, count) in enumerate(zip(made["tasks"], made["mistakes"], strict=True)):
        test = stream[index].test
        wrong = int((learner.logits(test.images, name).argmax(dim=1) != test.labels).sum())
        assert count == min(wrong, 6)
    assert sum(made["mistakes"]) > 0
    assert page.read_text().count("<image href=") >= sum(made["mistakes"])
    assert {file: file.read_bytes() for file in before if file != page} == {file: held for file, held in before.items() if file != page}


def test_a_run_whose_images_are_away(run, capsys):
    stream = run.parent / "three.toml"
    text = stream.read_text()
    stream.unlink()
    try:
        assert main(["report", str(run), "--device", "cpu", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["mistakes"] == [None] * 3
        assert main(["report", str(run), "--device", "cpu"]) == 0
        assert "no pictures of mistakes for" in capsys.readouterr().out
    finally:
        stream.write_text(text)
    assert "Worst mistakes" not in (run / "report.html").read_text()


def test_a_folder_without_a_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
