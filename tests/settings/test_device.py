"""Names of devices: what is accepted, and the one line about what is not."""

import pytest

from lifelong.errors import LifelongError
from lifelong.settings.device import parse_device
from lifelong.settings.run import Environment


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("auto", ("auto", None)),
        ("cpu", ("cpu", None)),
        ("cuda", ("cuda", None)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
        ("mps", ("mps", None)),
    ],
)
def test_names(name: str, parsed: tuple[str, int | None]) -> None:
    assert parse_device(name) == parsed


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "did you mean 'cuda'?"),
        ("gpu:1", "did you mean 'cuda'?"),
        ("GPU", "did you mean 'cuda'?"),
        ("gpu1", "did you mean 'cuda:1'?"),
        ("CUDA", "did you mean 'cuda'?"),
        ("cuda1", "did you mean 'cuda:1'?"),
        ("cuda-2", "did you mean 'cuda:2'?"),
        ("cude", "did you mean 'cuda'?"),
        ("nvidia", "did you mean 'cuda'?"),
        ("metal", "did you mean 'mps'?"),
        ("mps1", "did you mean 'mps'?"),
        ("Cpu", "did you mean 'cpu'?"),
        ("automatic", "did you mean 'auto'?"),
        ("tpu", "did you mean 'cpu'?"),
        ("xyz", "known: auto, cpu, cuda, mps"),
        ("", "known: auto, cpu, cuda, mps"),
        ("cuda:", "'' is not a device number"),
        ("cuda:x", "'x' is not a device number; numbers start at 0: cuda:0, cuda:1"),
        ("cuda:-1", "'-1' is not a device number"),
        ("cuda:1.0", "'1.0' is not a device number"),
        ("cuda:1:2", "'1:2' is not a device number"),
        ("cuda: 1", "' 1' is not a device number"),
        ("cuda:²", "'²' is not a device number"),
        ("cpu:0", "has no number; use --device cpu"),
        ("mps:0", "has no number; use --device mps"),
        ("auto:0", "has no number; use --device auto"),
    ],
)
def test_what_is_no_name(name: str, words: str) -> None:
    """Also where Python gives it, before anything is done."""
    for take in (parse_device, lambda name: Environment(device=name)):
        with pytest.raises(LifelongError) as caught:
            take(name)
        assert str(caught.value).startswith(f"--device {name}: ")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
