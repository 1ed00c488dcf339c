"""What is said to be tunable may differ from task to task: a method loads its state, answers as before and learns on under other values."""

from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from lifelong.methods.method import Context
from lifelong.methods.registry import METHODS, make_method
from lifelong.relatedness.extractor import open_extractor
from lifelong.settings.fields import Setting, check, settings_of
from lifelong.settings.training import TrainingSettings
from tests.made import made_task
from tests.methods.test_conformance import small_settings

SMALL = ("search_epochs", "init_channels", "extractor")
"""Settings that are not at their defaults here, so that the method is small."""


def others(item: Setting) -> list[Any]:
    """Values of a setting that are not its default."""
    kind = item.hint.__origin__ if get_origin(item.hint) is not Literal and hasattr(item.hint, "__origin__") else item.hint
    if get_origin(kind) is Literal:
        tried = list(get_args(kind))
    elif kind is bool:
        tried = [not item.default]
    elif kind is int:
        tried = [item.default + 1]
    elif kind is float:
        tried = [item.default / 2, item.default + 0.5]
    elif kind is tuple:
        tried = [item.default[1:]]
    else:
        raise TypeError(f"no other value known of {item.name}: {item.hint}")
    accepted = []
    for value in tried:
        try:
            accepted.append(check(item.hint, value))
        except ValueError:
            continue
    found = [value for value in accepted if value != item.default]
    assert found
    return found


def context(index: int, name: str) -> Context:
    training = TrainingSettings(epochs=2, batch_size=8, lr=0.05)
    opened = lambda extractor, policy: open_extractor(extractor, feature_input=policy)  # noqa: E731
    return Context(task_index=index, task_name=name, training=training, seed=0, device=torch.device("cpu"), open_extractor=opened)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in sorted(METHODS)), ("par", {"expert": "head"})])
def test_state_and_answers_do_not_depend_on_tunable_settings(name: str, options: dict[str, Any]) -> None:
    method = make_method(name, small_settings(name, **options))
    first, second = made_task("first", kind=1, train=8), made_task("second", kind=2, train=8)
    images = first.test.images
    method.learn(first, context(0, "first"))
    state, answers = method.state_dict(), method.logits(images, 0)
    tunable = [item for item in settings_of(METHODS[name].settings).values() if item.tunable and item.name not in SMALL]
    together = {}
    for item in tunable:
        for value in others(item):
            changed = make_method(name, small_settings(name, **options, **{item.name: value}))
            changed.load_state_dict(state)
            assert torch.equal(changed.logits(images, 0), answers), (item.name, value)
            assert changed.memory() == method.memory(), (item.name, value)
            together[item.name] = value
    changed = make_method(name, small_settings(name, **options, **together))
    changed.load_state_dict(state)
    changed.learn(second, context(1, "second"))
    assert changed.logits(images, 1).shape == (len(images), 3)
