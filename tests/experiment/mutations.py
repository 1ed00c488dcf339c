"""Saved states with one value of a wrong kind: what a stranger, a bug or a hand could have written."""

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Place = tuple[Any, ...]
"""Keys and positions that lead to a value."""


def places(tree: Any, at: Place = ()) -> Iterator[Place]:
    """Every value of a tree but the tree itself, containers among them."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def found(tree: Any, place: Place) -> Any:
    """The value at a place."""
    for key in place:
        tree = tree[key]
    return tree


def replaced(tree: Any, place: Place, value: Any) -> Any:
    """A tree with another value at a place."""
    if not place:
        return value
    key, rest = place[0], place[1:]
    if isinstance(tree, dict):
        return {**tree, key: replaced(tree[key], rest, value)}
    changed = [replaced(one, rest, value) if number == key else one for number, one in enumerate(tree)]
    return tuple(changed) if isinstance(tree, tuple) else changed


def _of_tensor(value: Tensor) -> list[Any]:
    whole = value.clone()
    shapes = [torch.zeros(*value.shape, 1, dtype=value.dtype), torch.cat([value.reshape(-1)] * 2), value.reshape(-1)[:0]]
    kinds = [value.to(torch.int16), value.to(torch.complex64), value.float().to(torch.bool)]
    numbers = [whole.fill_(float("nan"))] if value.is_floating_point() else [whole - 7, whole + 1000] if value.dtype != torch.bool else []
    return [None, "text", 3, [1.0, 2.0], {}, *shapes, *kinds, *numbers]


def wrong_values(value: Any) -> list[Any]:
    """What a value of another kind, or out of range, can be."""
    if isinstance(value, Tensor):
        return _of_tensor(value)
    if isinstance(value, dict):
        fewer = dict(list(value.items())[1:])
        return [
            None,
            [],
            "text",
            5,
            list(value.values()),
            {**value, "strange": 1},
            {**value, 7: torch.zeros(2)},
            *([fewer] if value else []),
        ]
    if isinstance(value, (list, tuple)):
        kind = type(value)
        return [None, {}, 4, "text", kind([*value, *value[-1:], None]), kind(value[1:]), list(value) if kind is tuple else tuple(value)]
    if isinstance(value, bool):
        return [None, "yes", [], 0.5, torch.ones(2)]
    if isinstance(value, (int, float)):
        return [None, "12", [], {}, -(abs(value) + 1), 10**9, float("inf"), float("nan"), True, torch.ones(2)]
    if isinstance(value, str):
        return [None, 3, [], {}, torch.ones(1), b"".decode() if value else "text", "no such thing"]
    return ["text", -3, [], {}, torch.zeros(3), 10**9]


def mutations(tree: Any, count: int, seed: int) -> Iterator[tuple[str, Any]]:
    """So many trees with one change each, and in words what it is; each key's kind of place as often as any other's."""
    chance = random.Random(seed)
    kinds: dict[str, list[Place]] = {}
    for place in places(tree):
        kinds.setdefault("/".join(str(key) for key in place if isinstance(key, str)), []).append(place)
    for _ in range(count):
        place = chance.choice(kinds[chance.choice(sorted(kinds))])
        value = chance.choice(wrong_values(found(tree, place)))
        words = " ".join(repr(value).split())[:60]
        yield f"{'/'.join(map(str, place))} = {words}", replaced(copy.copy(tree), place, value)
