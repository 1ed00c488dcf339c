"""The published JSON schema: it is that of the types, and every method's summary is valid by an independent reading of it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lifelong.experiment.results import read_summary
from lifelong.records.schema import summary_schema

ROOT = Path(__file__).parents[2]
STORED = sorted((ROOT / "tests" / "experiment" / "stored").glob("*/summary.json"))
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "summary-2.json").read_text())

KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
SAYS_NOTHING = {"title", "description", "default", "$schema", "$defs"}
BOUNDS = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "minItems": lambda value, bound: len(value) >= bound,
}


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """JSON Schema, as far as the published one uses it; an unknown word is an error of this test."""
    for word, says in schema.items():
        if word == "$ref":
            good = valid(value, SCHEMA["$defs"][says.removeprefix("#/$defs/")])
        elif word == "anyOf":
            good = any(valid(value, one) for one in says)
        elif word == "const":
            good = value == says
        elif word == "type":
            good = isinstance(value, KINDS[says]) and (says == "boolean" or not isinstance(value, bool))
        elif word == "required":
            good = not isinstance(value, dict) or set(says) <= set(value)
        elif word == "properties":
            good = not isinstance(value, dict) or all(valid(value[key], one) for key, one in says.items() if key in value)
        elif word == "additionalProperties":
            others = set(value) - set(schema.get("properties", ())) if isinstance(value, dict) else set()
            good = says is True or all(valid(value[key], says) for key in others)
        elif word == "items":
            good = not isinstance(value, list) or all(valid(item, says) for item in value)
        elif word in BOUNDS:
            numeric = isinstance(value, (int, float)) and math.isfinite(value)
            good = BOUNDS[word](value, says) if numeric or isinstance(value, list) else True
        else:
            assert word in SAYS_NOTHING, f"the schema uses '{word}', which this test does not know"
            good = True
        if not good:
            return False
    return True


def test_the_file_is_that_of_the_types():
    """If not: .venv/bin/python -m lifelong.records.schema > docs/schemas/summary-2.json; a renamed key is a new schema."""
    assert summary_schema() == SCHEMA


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.parent.name)
def test_every_method_s_summary_is_valid(file):
    assert valid(read_summary(file.parent).to_dict(), SCHEMA)
    assert not valid(json.loads(file.read_text()), SCHEMA)  # an earlier form, which does not say so


@pytest.mark.parametrize(
    "wrong",
    [
        {"ap": "0.5"},
        {"seed": -1},
        {"seed": 1.5},
        {"tasks": {}},
        {"tasks": [{"classes": []}]},
        {"accuracy": [[1.5]]},
        {"memory": {"prototypes": "x"}},
        {"schema_version": 3},
        {"complete": 1},
    ],
)
def test_what_is_wrong_is_not_valid(wrong):
    good = read_summary(STORED[0].parent).to_dict()
    assert not valid(good | wrong, SCHEMA)


def test_a_new_run_s_file_is_valid(tmp_path):
    """As it stands on the disk."""
    import lifelong

    stream = "digits?tasks=2&train_per_class=4&valid_per_class=2&test_per_class=2"
    summary = lifelong.run(
        stream, "par", preset="quick", epochs=1, search_epochs=1, init_channels=2, out=tmp_path, device="cpu", threads=1, progress=False
    )
    content = json.loads((tmp_path / "summary.json").read_text())
    assert valid(content, SCHEMA)
    assert content == summary
    assert content["schema_version"] == 2
