"""The pretended device is one: it computes, refuses what CUDA refuses, and notes where CUDA would make the host wait."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lifelong.training.examples import accuracy
from tests import pretend

HOST = torch.arange(12.0).view(3, 4)


def there(accelerator: torch.device) -> Tensor:
    return HOST.to(accelerator, non_blocking=True)


def test_it_computes(accelerator: torch.device) -> None:
    x = there(accelerator)
    assert (x.device, x.shape, x.dtype) == (torch.device("pretend", 0), (3, 4), torch.float32)
    assert torch.equal((x @ x.T).cpu(), HOST @ HOST.T)
    assert torch.arange(3, device=accelerator).tolist() == torch.tensor([0, 1, 2], device=accelerator).tolist() == [0, 1, 2]
    assert torch.eye(2, 3, device=accelerator).cpu().tolist() == [[1, 0, 0], [0, 1, 0]]


def test_views_share_their_numbers(accelerator: torch.device) -> None:
    x = there(accelerator).clone()
    column = x[:, 1]
    column += 1
    x.unsqueeze_(0)
    assert (x.shape, column.shape) == ((1, 3, 4), (3,))
    assert x[0, :, 1].tolist() == column.tolist() == [2, 6, 10]


def test_gradients_are_those_of_the_cpu(accelerator: torch.device) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))
    network(HOST).square().sum().backward()
    wanted = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    network.to(accelerator)
    network(there(accelerator)).square().sum().backward()
    found = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and gradient.device.type == "pretend" for gradient in found)
    assert all(torch.equal(gradient.cpu(), other) for gradient, other in zip(found, wanted, strict=True) if gradient is not None)


def test_modules_that_are_moved_share_what_they_shared(accelerator: torch.device) -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    both = nn.ModuleList([first, second]).to(accelerator)
    assert first.weight is second.weight
    assert len(list(both.parameters())) == 3
    assert all(parameter.device.type == "pretend" for parameter in both.parameters())


def test_generators(accelerator: torch.device) -> None:
    own, host = torch.Generator(accelerator).manual_seed(3), torch.Generator().manual_seed(3)
    assert isinstance(own, torch.Generator)
    assert isinstance(host, torch.Generator)
    assert (own.device.type, host.device.type) == ("pretend", "cpu")
    assert torch.rand(4, generator=own, device=accelerator).tolist() == torch.rand(4, generator=host).tolist()
    state = own.get_state()
    assert state.device.type == "cpu"
    drawn = torch.randperm(5, generator=own, device=accelerator)
    assert torch.equal(torch.randperm(5, generator=own.set_state(state), device=accelerator), drawn)
    with pytest.raises(RuntimeError, match="expected a generator of the device"):
        torch.rand(4, generator=host, device=accelerator)


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: x + HOST,
        lambda x: HOST + x,
        lambda x: torch.stack([x, HOST]),
        lambda x: torch.cat([x, torch.tensor([[0.0] * 4])]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: x @ HOST.T,
        lambda x: HOST.clone().add_(x.sum()),
        lambda x: torch.zeros(()).add_(x.sum()),
        lambda x: HOST[x.long() % 3],
        lambda x: x.index_put_((torch.tensor([0]),), HOST[:1]),
        lambda x: x.gather(0, torch.zeros(1, 4, dtype=torch.int64)),
        lambda x: nn.Linear(4, 2)(x),
        lambda x: nn.functional.cross_entropy(x, torch.tensor([0, 1, 2])),
        lambda x: torch.where(HOST > 3, x, 0.0),
    ],
)
def test_tensors_of_the_cpu_take_no_part(mixing: Callable[[Tensor], Tensor], accelerator: torch.device) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        mixing(there(accelerator))


def test_single_numbers_and_indices_of_the_cpu_do(accelerator: torch.device) -> None:
    x, number, rows = there(accelerator), torch.tensor(2.0), torch.tensor([2, 0])
    for found, wanted in [
        (x * number, HOST * 2),
        (number - x, 2 - HOST),
        (torch.where(x > 3, number, x), torch.where(HOST > 3, 2.0, HOST)),
        (x.masked_fill(x > 3, number), HOST.masked_fill(HOST > 3, 2.0)),
        (x[rows], HOST[rows]),
        (torch.empty_like(HOST).copy_(x), HOST),
    ]:
        assert torch.equal(found.cpu(), wanted)


@pytest.mark.parametrize(
    ("waiting", "operation"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool((x > 0).any()), "_local_scalar_dense"),
        (lambda x: int(x.max()), "_local_scalar_dense"),
        (lambda x: torch.is_nonzero(x.sum()), "_local_scalar_dense"),
        (lambda x: x.cpu(), "_to_copy"),
        (lambda x: x.to("cpu", non_blocking=True), "_to_copy"),
        (lambda x: x.tolist(), "_to_copy"),
        (lambda x: torch.empty(3, 4).copy_(x), "copy_"),
        (lambda x: HOST.to(x.device), "copy_"),
        (lambda x: torch.tensor([1.0], device=x.device), "copy_"),
        (lambda x: x.new_tensor([1.0]), "copy_"),
        (lambda x: x.copy_(HOST), "copy_"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x[x > 3], "index"),
        (lambda x: x[torch.tensor([1])], "index"),
        (lambda x: x.index_put_((x > 3,), x.sum()), "index_put_"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.where(x > 3), "nonzero"),
        (lambda x: x.masked_select(x > 3), "masked_select"),
        (lambda x: x.unique(), "_unique2"),
        (lambda x: x.long().flatten().bincount(), "bincount"),
        (lambda x: x[0].repeat_interleave(x[1].long()), "repeat_interleave"),
        (lambda x: x.multinomial(1), "multinomial"),
        (lambda x: torch.linalg.eigh(x @ x.T), "_linalg_eigh"),
    ],
)
def test_the_host_waits(waiting: Callable[[Tensor], object], operation: str, accelerator: torch.device) -> None:
    x = there(accelerator)
    with pretend.counted() as syncs:
        waiting(x)
    assert operation in [sync.operation for sync in syncs]


@pytest.mark.parametrize(
    "going_on",
    [
        lambda x: HOST.to(x.device, non_blocking=True),
        lambda x: x.copy_(HOST, non_blocking=True),
        lambda x: x.clone().copy_(x),
        lambda x: x[x[0].long() % 3],
        lambda x: x[1:, 2],
        lambda x: torch.where(x > 3, x, 0.0),
        lambda x: x.masked_fill(x > 3, 0.0),
        lambda x: x.topk(2),
        lambda x: x.sort(stable=True),
        lambda x: nn.functional.one_hot(x.long(), 12),
        lambda x: x[0].repeat_interleave(x[1].long(), output_size=22),
        lambda x: nn.functional.cross_entropy(x, x[:, 0].long() % 4),
        lambda x: torch.zeros(3, device=x.device) + torch.full((), 2.0, device=x.device),
    ],
)
def test_the_host_goes_on(going_on: Callable[[Tensor], object], accelerator: torch.device) -> None:
    x = there(accelerator)
    with pretend.counted() as syncs:
        going_on(x)
    assert syncs == []


def test_waits_are_noted_by_their_place(accelerator: torch.device) -> None:
    x = there(accelerator)
    with pretend.counted() as syncs, pretend.counted() as same:
        accuracy(x, x[:, 0].long())
    x.sum().item()
    (sync,) = syncs
    assert sync.operation == "_local_scalar_dense"
    assert sync.where.startswith("training/examples.py:")
    assert same == syncs


def test_waits_of_backward_passes_are_noted(accelerator: torch.device) -> None:
    class Waiting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    x = there(accelerator).requires_grad_(True)
    loss = Waiting.apply(x).sum()
    with pretend.counted() as syncs:
        loss.backward()
    assert [sync.operation for sync in syncs] == ["_local_scalar_dense"]


def test_without_float64(accelerator: torch.device) -> None:
    x = there(accelerator)
    with pretend.without_float64():
        for wide in (
            lambda: x.double(),
            lambda: torch.zeros(2, dtype=torch.float64, device=accelerator),
            lambda: HOST.double().to(accelerator),
        ):
            with pytest.raises(TypeError, match="has no torch"):
                wide()
        assert x.cpu().double().dtype == torch.float64
    assert x.double().dtype == torch.float64
