"""Float64 where a device has it, and on the CPU where it has not."""

import pytest
import torch

from lifelong import devices
from lifelong.devices import exact, exact_device, widest
from tests import pretend

CPU = torch.device("cpu")


def test_apples_have_no_float64() -> None:
    assert widest(torch.device("mps")) == torch.float32
    assert exact_device("mps") == exact_device("mps:0") == CPU
    for name in ("cpu", "cuda", "cuda:1"):
        assert widest(torch.device(name)) == torch.float64
        assert exact_device(name) == torch.device(name)


def test_float64_where_the_tensor_is(accelerator: torch.device) -> None:
    for device in (CPU, accelerator):
        wide = exact(torch.tensor([True, False]).to(device))
        assert (wide.dtype, wide.device.type, wide.tolist()) == (torch.float64, device.type, [1.0, 0.0])


def test_float64_on_the_cpu_instead(accelerator: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"pretend"})
    with pretend.without_float64():
        wide = exact(torch.tensor([0.1, 2.0]).to(accelerator))
        assert torch.zeros(2, dtype=widest(accelerator), device=accelerator).dtype == torch.float32
    assert (wide.dtype, wide.device) == (torch.float64, CPU)
    assert torch.equal(wide, torch.tensor([0.1, 2.0]).double())
