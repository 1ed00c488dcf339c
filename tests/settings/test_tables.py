from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge

from lifelong.errors import LifelongError
from lifelong.settings.fields import Words
from lifelong.settings.tables import read_table


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Ge(1)]
    kind: Literal["round", "square"] = "round"


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, Words("a name")]
    inner: bool | Inner | None = None
    pair: tuple[float, float] = (0.0, 1.0)


def test_a_table_within_a_table():
    read = read_table(Outer, {"name": "a", "inner": {"size": 3, "kind": "square"}, "pair": [2, 0.5]})
    assert read == Outer("a", Inner(3, "square"), (2.0, 0.5))
    assert all(isinstance(number, float) for number in read.pair)
    assert read_table(Outer, {"name": "a", "inner": True}) == Outer("a", True)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"name": 3}, "file, name = 3: expected a name"),
        ({"nam": "a"}, "file, the key 'name' is missing; is 'nam' meant to be it?"),
        ({}, "file, the key 'name' is missing; add it"),
        ({"name": "a", "iner": True}, "file, unknown key 'iner'; did you mean 'inner'?"),
        ({"name": "a", "inner": 3}, "file, inner = 3: expected true or false, or a table with size, kind"),
        ({"name": "a", "inner": {"size": 0}}, "file, inner, size = 0: expected an integer >= 1"),
        (
            {"name": "a", "inner": {"size": 1, "kind": "sqare"}},
            "file, inner, kind = \"sqare\": expected one of 'round', 'square'; did you mean 'square'?",
        ),
        ({"name": "a", "pair": [1]}, "file, pair = [1]: expected a list of 2, each a number"),
    ],
)
def test_an_error_names_the_place_the_value_and_what_is_accepted(values, line):
    with pytest.raises(LifelongError) as caught:
        read_table(Outer, values, "file")
    assert str(caught.value) == line
