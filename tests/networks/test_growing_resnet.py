"""Choices, adapters, mixtures and paths of the light ResNet-18 that grows by convolutions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.networks.growing_resnet import (
    CONVOLUTIONS,
    NEW,
    Adapted,
    Choice,
    ChoicePath,
    GrowingResNet,
    Mixture,
    Variant,
    choices,
    kernel,
    lineage,
    mixtures,
)
from lifelong.networks.resnet import LightResNet


def path(**different: Choice) -> ChoicePath:
    """All is reused but the named convolutions; "__" stands for a dot."""
    assert set(different) <= {name.replace(".", "__") for name in CONVOLUTIONS}
    return tuple(different.get(name.replace(".", "__"), Choice("reuse", 0)) for name in CONVOLUTIONS)


def grown(channels: int = 4, tasks: int = 1) -> GrowingResNet:
    """What all-new networks have left."""
    torch.manual_seed(0)
    growing = GrowingResNet(channels)
    for _ in range(tasks):
        growing.keep(growing.network((NEW,) * len(CONVOLUTIONS)))
    return growing


def size(*modules: nn.Module) -> int:
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def test_there_are_twenty_convolutions():
    assert len(CONVOLUTIONS) == 1 + 8 * 2 + 3
    assert [name for name in CONVOLUTIONS if "downsample" in name] == [f"layers.{g}.0.downsample.0" for g in (1, 2, 3)]


def test_choices():
    assert choices(0) == [NEW]
    assert choices(1) == [Choice("reuse", 0), Choice("adapt", 0), NEW]
    assert len(choices(3)) == 7


def test_a_network_that_is_all_new_is_the_light_resnet():
    growing = GrowingResNet()
    torch.manual_seed(3)
    network = growing.network((NEW,) * len(CONVOLUTIONS))
    torch.manual_seed(3)
    plain = LightResNet()
    assert size(network) == 606_400
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), plain.state_dict().values(), strict=True))


def test_a_network_that_reuses_another_begins_as_a_copy_of_it():
    """Its batch norms too; then they are its own. With a new stem there is a new batch norm behind it."""
    growing = grown()
    first = growing.network((NEW,) * len(CONVOLUTIONS)).train()
    for _ in range(3):
        first(1 + 2 * torch.randn(4, 3, 8, 8))
    growing.keep(first)
    images = torch.randn(2, 3, 8, 8)
    again = growing.network((Choice("reuse", 1),) * len(CONVOLUTIONS))
    assert torch.equal(again.eval()(images), first(images))
    before = first(images)
    again.train()(images)
    assert not torch.equal(again.eval()(images), before)
    assert torch.equal(first(images), before)
    renewed = growing.network((NEW, *(Choice("reuse", 1),) * 19))
    assert renewed.bn1.running_mean.abs().max() == 0 < first.bn1.running_mean.abs().max()


# At 64 channels: batch norms 2,560; a 3x3 convolution 36,864 and its adapter 4,096; the stem 1,728 and 192; a shortcut 4,096 and 4,096.
@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({}, 2_560),
        ({"conv1": NEW}, 2_560 + 1_728),
        ({"conv1": Choice("adapt", 0)}, 2_560 + 192),
        ({"layers__0__0__conv1": NEW, "layers__3__1__conv2": Choice("adapt", 0)}, 2_560 + 36_864 + 4_096),
        ({"layers__1__0__downsample__0": NEW, "layers__2__0__downsample__0": Choice("adapt", 0)}, 2_560 + 2 * 4_096),
    ],
)
def test_what_a_path_adds(changes: dict[str, Choice], added: int):
    growing = grown(64)
    chosen = path(**changes)
    network = growing.network(chosen)
    assert size(network) == added
    # With what it borrows it has the size of a whole network, or more by its adapters.
    adapters = {"conv1": 192}
    more = sum(adapters.get(name, 4_096) for name, choice in changes.items() if choice.kind == "adapt")
    assert size(network, *growing.borrowed(chosen)) == 606_400 + more


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("field", [1, 3])
def test_an_adapter_is_added_to_what_it_adapts(stride: int, field: int):
    torch.manual_seed(0)
    base = nn.Conv2d(3, 5, field, stride=stride, padding=field // 2, bias=False)
    once = Adapted(base, nn.Conv2d(3, 5, 1, stride=stride, bias=False))
    twice = Adapted(once, nn.Conv2d(3, 5, 1, stride=stride, bias=False))
    x = torch.randn(2, 3, 8, 8)
    first = F.conv2d(x, base.weight, stride=stride, padding=field // 2) + F.conv2d(x, once.adapter.weight, stride=stride)
    torch.testing.assert_close(once(x), first)
    torch.testing.assert_close(twice(x), first + F.conv2d(x, twice.adapter.weight, stride=stride))
    assert size(twice) == 15
    assert lineage(twice) == [twice, once, base]
    for variant in (base, once, twice):
        torch.testing.assert_close(F.conv2d(x, kernel(variant), stride=stride, padding=field // 2), variant(x))


def slow(mixture: Mixture, known: list[Variant], x: Tensor) -> Tensor:
    """The mixture choice by choice, each computed by itself."""
    weights = torch.exp(mixture.alpha) / torch.exp(mixture.alpha).sum()
    terms = [variant(x) for variant in known]
    terms += [variant(x) + adapter(x) for variant, adapter in zip(known, mixture.adapters, strict=True)]
    terms.append(mixture.new(x))
    return sum(weight * term for weight, term in zip(weights, terms, strict=True))


def convolution(inputs: int, field: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, 5, field, stride=stride, padding=field // 2, bias=False)


@pytest.mark.parametrize(("inputs", "field", "stride"), [(3, 3, 1), (5, 3, 2), (5, 1, 2)])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_mixture_is_the_weighted_sum_of_its_choices(inputs: int, field: int, stride: int, adapted: bool):
    torch.manual_seed(0)
    known: list[Variant] = [convolution(inputs, field, stride)]
    if adapted:
        known.append(Adapted(known[0], convolution(inputs, 1, stride)))
    mixture = Mixture(convolution(inputs, field, stride), known)
    assert len(mixture.alpha) == (5 if adapted else 3)
    mixture.alpha.data.normal_()
    x = torch.randn(2, inputs, 8, 8)
    fast, plain = mixture(x), slow(mixture, known, x)
    torch.testing.assert_close(fast, plain)
    # So are the gradients that alpha, the adapters and the new convolution get.
    parts = list(mixture.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(out.square().sum(), parts) for out in (fast, plain)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_sizes_by_hand():
    mixture = Mixture(convolution(5, 3, 1), [convolution(5, 3, 1)])
    sizes = [0.0, math.log10(1 + 25), math.log10(1 + 225)]
    assert mixture.sizes.tolist() == pytest.approx(sizes)
    assert mixture.expected_size().item() == pytest.approx(sum(sizes) / 3)
    mixture.alpha.data = torch.tensor([math.log(1), math.log(3), math.log(4)])
    assert mixture.expected_size().item() == pytest.approx((3 * sizes[1] + 4 * sizes[2]) / 8)


def test_a_supernet_has_all_choices_and_holds_no_variant():
    growing = grown(tasks=2)
    supernet = growing.supernet()
    assert [len(mixture.alpha) for mixture in mixtures(supernet)] == [5] * 20
    assert supernet(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    held = {id(p) for p in supernet.parameters()}
    assert not any(id(p) in held for variants in growing.variants for variant in variants for p in variant.parameters())
    assert not any("known" in name for name in supernet.state_dict())


def test_what_is_added_can_be_reused_and_nothing_else():
    growing = grown()
    chosen = path(conv1=NEW, layers__0__0__conv1=Choice("adapt", 0))
    growing.keep(growing.network(chosen))
    assert [len(variants) for variants in growing.variants] == [2, 2] + [1] * 18
    later = path(conv1=Choice("reuse", 1), layers__0__0__conv1=Choice("adapt", 1))
    # The adapted convolution that is adapted once more, and its base.
    assert len(growing.borrowed(later)) == 1 + 2 + 18
    frozen = [variant for variants in growing.variants for variant in variants]
    assert not any(p.requires_grad for variant in frozen for p in variant.parameters())
