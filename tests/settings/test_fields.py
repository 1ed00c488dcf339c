import math
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt

from lifelong.methods.registry import METHODS
from lifelong.settings.fields import as_lists, check, expected, flag, settings_of, show, show_default
from lifelong.settings.run import RunConfig
from lifelong.settings.training import TrainingSettings

WHOLE = Annotated[int, Ge(1), Le(20)]
SHARE = Annotated[float, Ge(0), Lt(1)]
LIST = tuple[Annotated[float, Ge(0)], ...]
CHOICE = Literal["pair", "class"]
SIZE = Literal["task", "1", "64"]


@pytest.mark.parametrize(
    ("hint", "value", "kept"),
    [
        (WHOLE, 1, 1),
        (WHOLE, 20, 20),
        (SHARE, 0, 0.0),
        (SHARE, 0.5, 0.5),
        (LIST, [], ()),
        (LIST, [0.1, 1], (0.1, 1.0)),
        (LIST, (0.1,), (0.1,)),
        (CHOICE, "class", "class"),
        (SIZE, 64, "64"),
        (SIZE, "64", "64"),
        (SIZE, "task", "task"),
        (bool, False, False),
        (str, "x", "x"),
    ],
)
def test_accepted_values_come_back_in_their_type(hint, value, kept):
    result = check(hint, value)
    assert result == kept
    assert type(result) is type(kept)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (WHOLE, 0),
        (SIZE, 65),
        (SIZE, 64.0),
        (SIZE, True),
        (SIZE, "064"),
        (WHOLE, 21),
        (WHOLE, "10"),
        (WHOLE, "ten"),
        (WHOLE, 3.5),
        (WHOLE, 3.0),
        (WHOLE, True),
        (WHOLE, None),
        (SHARE, 1.0),
        (SHARE, -0.1),
        (SHARE, "0.5"),
        (SHARE, True),
        (SHARE, math.nan),
        (Annotated[float, Gt(0)], 0),
        (Annotated[float, Gt(0)], math.inf),
        (LIST, 0.1),
        (LIST, [0.1, -1.0]),
        (LIST, ["a"]),
        (LIST, [math.nan]),
        (bool, 1),
        (bool, "true"),
        (str, 3),
        (CHOICE, "Pair"),
        (CHOICE, 1),
    ],
)
def test_other_values_are_refused_with_what_is_accepted(hint, value):
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        check(hint, value)
    assert expected(hint) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_near_miss_among_choices_is_named():
    with pytest.raises(ValueError, match=r"expected one of 'pair', 'class'; did you mean 'pair'\?"):
        check(CHOICE, "pear")


def test_types_in_words():
    assert expected(WHOLE) == "an integer >= 1 and <= 20"
    assert expected(SHARE) == "a number >= 0 and < 1"
    assert expected(LIST) == "a list, each a number >= 0"
    assert expected(bool) == "true or false"
    assert expected(str) == "a text"


def test_values_as_text():
    assert show((0.1, 1.0)) == "[0.1, 1.0]"
    assert show("a\x7f") == '"a\\u007f"'
    assert show_default(()) == "none"
    assert show_default((0.1, 0.2)) == "0.1,0.2"
    assert show_default("DARTS_V1") == "DARTS_V1"
    assert show_default(True) == "true"
    assert as_lists({"a": (1, (2,))}) == {"a": [1, [2]]}
    assert flag("batch_size") == "--batch-size"


@pytest.mark.parametrize("settings", [TrainingSettings, *(entry.settings for entry in METHODS.values())])
def test_every_setting_is_documented_and_its_default_is_accepted(settings):
    for item in settings_of(settings).values():
        assert item.help, item.name
        assert check(item.hint, item.default) == item.default


@pytest.mark.parametrize("name", METHODS)
def test_no_hyper_parameter_has_the_name_of_another_setting_of_the_run(name):
    own = settings_of(METHODS[name].settings).keys()
    assert not own & (settings_of(TrainingSettings).keys() | RunConfig.__dataclass_fields__.keys())
