"""Declared types and shapes are executed in the tests: what contradicts them fails, wherever it stands."""

from dataclasses import dataclass

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from torch import Tensor

from lifelong.data.task import Normalization, Split, statistics
from lifelong.relatedness.divergence import _few_images_bias
from lifelong.words import counted
from tests.checked import ALWAYS, SELDOM, jaxtyped

declare = jaxtyped(typechecker=beartype)


@declare
def stack(left: Float[Tensor, "n d"], right: list[Float[Tensor, "m d"]] | None = None) -> Float[Tensor, "k d"]:
    return torch.cat([left, *(right or [])], 1 if right is None else 0)[: len(left) + 1]


@declare
def half(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return features[: len(features) // 2]


def test_an_axis_has_one_size_in_a_call_and_any_in_the_next():
    assert stack(torch.zeros(2, 3), [torch.zeros(4, 3)]).shape == (3, 3)
    assert stack(torch.zeros(2, 5), [torch.zeros(4, 5)]).shape == (3, 5)
    with pytest.raises(BeartypeCallHintViolation):
        stack(torch.zeros(2, 3), [torch.zeros(4, 5)])
    with pytest.raises(BeartypeCallHintViolation):
        half(torch.zeros(4, 3))
    assert half(torch.zeros(0, 3)).shape == (0, 3)  # the failures before left nothing behind


def test_of_many_calls_the_first_are_checked_and_some_later_ones():
    def caught(times: int) -> int:
        found = 0
        for _ in range(times):
            try:
                half(torch.zeros(4, 3))
            except BeartypeCallHintViolation:
                found += 1
        return found

    assert caught(ALWAYS) == ALWAYS
    assert caught(10 * SELDOM) == 10


def test_types_without_shapes_and_dataclasses():
    @declare
    @dataclass
    class Row:
        name: str
        values: Float[Tensor, " n"]

    @declare
    def name(row: Row) -> str:
        return row.name or row

    row = Row("a", torch.zeros(3))
    assert name(row) == "a"
    for wrong in (lambda: Row("a", torch.zeros(3, 3)), lambda: name("a"), lambda: name(Row("", torch.zeros(3)))):
        with pytest.raises(BeartypeCallHintViolation):
            wrong()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: counted("3", "task"),
        lambda: Normalization(0.5, 0.5),
        lambda: Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4)),
        lambda: statistics(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)),
        lambda: _few_images_bias([], 3, every=True),
    ],
)
def test_the_library_is_checked(wrong):
    with pytest.raises(BeartypeCallHintViolation):
        wrong()
