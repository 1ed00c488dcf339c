"""The model card: front matter that the Hub's library reads, every number from the record, and names that stay names."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

import lifelong
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.records.run import RunRecord
from lifelong.report.card import MOST_CLASSES, About, model_card
from tests.learned import small_run

ABOUT = About("birds", "hub:me/birds", "shares or allocates", "Somebody, arXiv 0000.00000", "mit", True)
EVIL = "a|b <script>alert(1)</script> [x](http://y) `c` --- \N{RIGHT-TO-LEFT OVERRIDE}\n# no heading"


def record(**more: object) -> RunRecord:
    task = {
        "name": "low",
        "classes": ["zero", "one"],
        "train": 20,
        "valid": 10,
        "test": 8,
        "image_size": 8,
        "decision": "search",
        "judged": {"recall": [0.75, 0.5], "confusion": None, "majority": 0.625},
    }
    other = {**task, "name": "high", "classes": ["eight", "nine"], "test": 60, "decision": "reuse-expert", "notes": ["few images"]}
    values = {
        "version": "0.1.0",
        "stream": "mine",
        "stream_fingerprint": "0123abcd",
        "method": "par",
        "seed": 3,
        "ap": 0.7125,
        "af": -0.0125,
        "parameters": 12345,
        "bytes": 50000,
        "accuracy": [[0.75], [0.625, 0.8]],
        "tasks": [task, other],
        "notes": ["data check: 2 of 24 images are of one colour."],
        "extractor": "resnet18",
        "seconds": 90.0,
    }
    return RunRecord.model_validate(values | more)


def front(card: str) -> dict:
    match = re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)
    assert match is not None
    return yaml.safe_load(match[1])


def test_the_front_matter_is_the_hubs() -> None:
    card = model_card(record(), ABOUT)
    found = front(card)
    assert found["library_name"] == "lifelong"
    assert found["license"] == "mit"
    assert found["pipeline_tag"] == "image-classification"
    assert found["metrics"] == ["accuracy"]
    assert "par" in found["tags"]
    data = ModelCard(card, ignore_metadata_errors=False).data
    assert data.model_name == "birds"
    results = {result.dataset_name: (result.task_type, result.metric_type, result.metric_value) for result in data.eval_results or ()}
    assert results == {
        "mine: low": ("image-classification", "accuracy", 0.625),
        "mine: high": ("image-classification", "accuracy", 0.8),
    }


def test_a_licence_only_if_one_was_given() -> None:
    without = About("birds", "runs/birds", "m", "s")
    assert "license" not in front(model_card(record(), without))


def test_it_says_what_the_record_says() -> None:
    card = model_card(record(), ABOUT)
    for heading in (
        "What it has learned",
        "How well",
        "Recall of classes",
        "How to use it",
        "What it was learned from",
        "Limits",
        "How it was made",
    ):
        assert re.search(rf"^###? {heading}$", card, flags=re.MULTILINE), heading
    assert "| 1. low | zero, one | 20 / 10 / 8 | 8 px | search | 0.625 | 0.625 |" in card
    assert "| 2. high | eight, nine | 20 / 10 / 60 | 8 px | reuse-expert | 0.800 | 0.625 |" in card
    assert re.search(r"AP\\\).*\| 0\.71[23] \|", card)
    assert re.search(r"AF\\\).*\| -0\.01[23] \|", card)
    assert "| low | zero | 0.750 |" in card
    assert "fingerprint `0123abcd`" in card
    assert "the accuracies of low are rough" in card, "4 test images for each class"
    assert "2 of 24 images are of one colour" in card
    assert "few images" in card
    assert 'lifelong.Learner.load("hub:me/birds", download=True)' in card
    assert "lifelong predict hub:me/birds photo.jpg --download" in card
    assert "--weights FILE" in card
    assert "was not examined" in card, "no claims of fairness"


def test_names_stay_names() -> None:
    evil = record()
    evil.tasks[0].name = EVIL
    evil.tasks[0].classes = [EVIL, "one"]
    evil.stream = EVIL
    card = model_card(evil, About(EVIL, "hub:me/birds", EVIL, EVIL))
    body = card.split("\n---\n", 1)[1]
    assert "<script>" not in body.replace(card.partition("```python")[2].partition("```")[0], "")
    assert not re.search(r"^# no heading", card, flags=re.MULTILINE)
    assert "](http://y)" not in body.replace("\\](http", "") or "\\]" in body
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in card
    found = front(card)
    assert found["model-index"][0]["results"][0]["dataset"]["name"].endswith("# no heading")
    for line in body.splitlines():
        if line.startswith("| 1."):
            assert len(re.findall(r"(?<!\\)\|", line)) == 8, "seven cells"


def test_what_was_not_recorded_is_left_out() -> None:
    plain = record(accuracy=[[None], [None, None]], ap=None, af=None, notes=None, seconds=None, extractor=None)
    for task in plain.tasks:
        task.judged = None
    card = model_card(plain, ABOUT)
    assert "model-index" not in front(card)
    assert "Recall of classes" not in card
    assert "nan" not in card.lower().replace("name", "")
    assert "None" not in card


def test_many_classes_are_cut_to_the_worst() -> None:
    many = [f"class {number}" for number in range(MOST_CLASSES + 20)]
    judged = {"recall": [number / 100 for number in range(len(many))], "confusion": None, "majority": 0.1}
    task = {"name": "many", "classes": many, "test": 7000, "image_size": 32, "judged": judged}
    card = model_card(record(tasks=[task], accuracy=[[0.5]]), ABOUT)
    assert card.count("| many |") == MOST_CLASSES
    assert "| class 0 |" in card
    assert f"| class {MOST_CLASSES + 19} |" not in card
    assert f"The {MOST_CLASSES} lowest of {MOST_CLASSES + 20}" in card


def test_of_a_real_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path, "finetune")
    text = lifelong.model_card(run, license="cc-by-4.0", name="three")
    assert front(text)["license"] == "cc-by-4.0"
    assert str(tmp_path) not in text
    assert main(["card", str(run), "--name", "three", "--license", "cc-by-4.0"]) == 0
    assert capsys.readouterr().out == text
    assert main(["card", str(run), "--name", "three", "--license", "cc-by-4.0", "--out", str(tmp_path / "card.md")]) == 0
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == text
    with pytest.raises(LifelongError, match=r"license = 'A B': expected an abbreviation"):
        lifelong.model_card(run, license="A B")
