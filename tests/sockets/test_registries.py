"""What all sockets share: short examples, refusals of one line, and imports only when asked."""

import sys

import pytest
from torch import nn

import lifelong
from lifelong.errors import LifelongError
from lifelong.registry import Registry
from lifelong.settings.fields import check, expected
from lifelong.settings.par import PARSettings
from tests.sockets.examples import EXAMPLES, Constant

LENGTHS = {
    "new_measure": 25,
    "new_regularizer": 40,
    "new_allocation": 40,
    "new_decision": 30,
    "new_extractor": 15,
    "new_method": 60,
    "new_figure": 25,
    "new_backbone": 20,
    "new_observer": 12,
    "new_engine": 40,
}
"""The most lines an example may have, without its text and empty ones."""


@pytest.mark.parametrize("name", LENGTHS)
def test_an_example_is_one_short_file(name):
    lines = (EXAMPLES / f"{name}.py").read_text().split('"""', 2)[2].splitlines()
    assert len([line for line in lines if line.strip()]) <= LENGTHS[name]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: lifelong.register_measure("mine", Constant()), "a subclass of Measure"),
        (
            lambda: lifelong.register_measure("mine", lifelong.Measure),
            "register_measure: .*: give a subclass of .* that has keep and diverg",
        ),
        (lambda: lifelong.register_measure("bad name!", Constant), "letters, digits"),
        (lambda: lifelong.register_measure("prototype-kl", Constant), "registered already"),
        (lambda: lifelong.register_regularizer("mine", Constant), "a subclass of Regularizer"),
        (lambda: lifelong.register_allocation("mine", Constant), "a subclass of Allocation that has plan and build"),
        (lambda: lifelong.register_allocation("mine", lifelong.Allocation), "a subclass of Allocation that has plan and build"),
        (lambda: lifelong.register_decision("mine", Constant), "a subclass of DecisionRule that has decide"),
        (lambda: lifelong.check_decision("orcale"), "did you mean 'oracle'"),
        (lambda: lifelong.distances("digits", decision="z-score"), "grouped by the thresholds, without training"),
        (
            lambda: lifelong.make_method("par", PARSettings(decision="z-score", variant="fine")),
            "has nothing to decide: --variant fine never shares",
        ),
        (lambda: lifelong.make_method("par", PARSettings(decision="z-score", expert="head")), "--decision z-score is for --expert cells"),
        (lambda: lifelong.register_observer("mine", Constant), "give a subclass of Observer$"),
        (lambda: lifelong.check_allocation("serched"), "did you mean 'searched'"),
        (lambda: lifelong.register_extractor("mine", nn.Flatten()), "a function without arguments"),
        (lambda: lifelong.register_backbone("mine", nn.Flatten()), "give the class itself, or a function"),
        (lambda: lifelong.check_measure("prototype-k"), "did you mean 'prototype-kl'"),
        (lambda: lifelong.distances("digits", measure="prototype-k"), "did you mean 'prototype-kl'"),
        (lambda: lifelong.distances("digits", extractor="resnet"), "expected one of 'auto', 'resnet18', 'pixels'"),
    ],
)
def test_what_cannot_be_registered_is_one_line(call, line):
    with pytest.raises(LifelongError, match=line) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_registry_imports_what_it_names_only_when_asked():
    from lifelong.registry import Entry

    registry = Registry("thing", Entry("one", "json:dumps", "", ""), Entry("two", "not_a_module:at_all", "", ""))
    assert "not_a_module" not in sys.modules
    assert registry["one"]([1]) == "[1]"
    assert list(registry) == ["one", "two"]
    with pytest.raises(LifelongError, match=r"unknown thing 'ones'; did you mean 'one'"):
        registry["ones"]


def test_a_setting_of_a_registry_says_what_it_accepts():
    hint = PARSettings.__annotations__["regularizer"]
    known = "one of 'distillation', 'feature-distillation', 'ewc', 'mas', 'l2-sp', 'none', 'frozen'"
    assert expected(hint) == known
    lifelong.register_regularizer("nothing", type("Free", (lifelong.Regularizer,), {"loss": lambda self, shared: None}))
    assert check(hint, "nothing") == "nothing"
    assert expected(hint) == f"{known}, 'nothing'"
    for wrong in (3, None, ["distillation"], "distil"):
        with pytest.raises(ValueError, match="expected one of"):
            check(hint, wrong)
