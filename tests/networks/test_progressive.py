"""Progressive columns: their size, a pass written out by hand, and what is read of whom."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.networks.blocks import make_chain
from lifelong.networks.progressive import Adapter, Column, LateralForm, outputs_of


def size(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameters_of_the_paper_s_form() -> None:
    """facts/baselines 14: 607,050 + 604,544 + 5 (4096 t + 64) + 650 + 5 t for a column that reads t others."""
    chain = make_chain("light-resnet18")
    with torch.device("meta"):  # weights are counted, none is drawn
        sizes = [size(Column(chain, 10, earlier)) for earlier in range(10)]
    assert sizes[0] == 607_050
    assert sizes[1:] == [607_050 + 604_544 + 5 * (4096 * t + 64) + 650 + 5 * t for t in range(1, 10)]
    assert sum(sizes) == 12_441_951


def test_parameters_of_mntdp_s_form() -> None:
    """A copy of the groups (604,544) and of the head (650) for each earlier column; six tasks make 12.7 million, ten 33.3."""
    chain = make_chain("light-resnet18")
    with torch.device("meta"):
        sizes = [size(Column(chain, 10, earlier, "copies")) for earlier in range(6)]
    assert sizes == [606_400 + 650 + t * 605_194 for t in range(6)]
    assert sum(sizes) == 6 * 607_050 + 15 * 605_194 == 12_720_210


def test_scales_of_pars_code_are_drawn() -> None:
    """From a standard normal; a column that draws none starts as it did."""
    torch.manual_seed(0)
    drawn = Column(make_chain("light-resnet18", 4), 2, 200, scales="normal").head.lateral
    assert isinstance(drawn, Adapter)
    assert abs(drawn.alpha.mean()) < 0.3
    assert 0.8 < drawn.alpha.std() < 1.2
    even = Column(make_chain("light-resnet18", 4), 2, 2).head.lateral
    assert isinstance(even, Adapter)
    assert even.alpha.tolist() == [1, 1]


def columns(form: LateralForm, backbone: str = "light-resnet18", count: int = 3) -> list[Column]:
    """Columns in evaluation mode, with scales that are not all alike."""
    chain = make_chain(backbone, 4)
    made = [Column(chain, 2 + earlier, earlier, form).eval() for earlier in range(count)]
    for column in made:
        for name, parameter in column.named_parameters():
            if name.endswith("alpha"):
                parameter.data = torch.rand_like(parameter) + 0.5
    return made


def by_hand(columns: list[Column], images: Tensor, form: LateralForm) -> Tensor:
    """Logits of the last column: level by level over all columns, the scales applied to the weights instead of to the maps."""
    below = [column.trunk[0].block(images) for column in columns]
    for position in range(1, len(columns[0].trunk) + 1):
        above = []
        for t, column in enumerate(columns):
            level = column.head if position == len(column.trunk) else column.trunk[position]
            total = level.block(below[t])
            if t and form == "copies":
                for k in range(t):
                    total = total + level.lateral.blocks[k](below[k])
            elif t:
                reduce, width = level.lateral.reduce, below[0].shape[1]
                weight = reduce.weight.flatten(1)  # (width, t * width)
                mixed = reduce.bias.view(-1, *[1] * (below[0].ndim - 2))
                for k in range(t):
                    part = level.lateral.alpha[k] * weight[:, k * width : (k + 1) * width]
                    mixed = mixed + torch.einsum("oc,nc...->no...", part, below[k])
                total = total + level.lateral.block(F.relu(mixed))
            above.append(total)
        below = above
    return below[-1]


@pytest.mark.parametrize("form", ["adapter", "copies"])
@pytest.mark.parametrize("backbone", ["light-resnet18", "conv4"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_pass_by_hand(form: LateralForm, backbone: str, count: int) -> None:
    with torch.no_grad():
        made, images = columns(form, backbone, count), torch.randn(3, 3, 16, 16)
        logits = made[-1](images, outputs_of(made[:-1], images))
        assert logits.shape == (3, 1 + count)
        torch.testing.assert_close(logits, by_hand(made, images, form), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["adapter", "copies"])
def test_every_earlier_column_is_read_with_its_own_laterals(form: LateralForm) -> None:
    """The third column's answer changes with the first block of each earlier one, and with the lateral between those two."""
    made, images = columns(form), torch.randn(3, 3, 16, 16)
    first, second, third = made
    for module in (first.trunk[0], second.trunk[0], second.trunk[1].lateral):
        before = third(images, outputs_of([first, second], images))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.5)
        assert (third(images, outputs_of([first, second], images)) - before).abs().max() > 1e-4


def test_maps_of_an_earlier_column_are_computed_once() -> None:
    made, images = columns("adapter"), torch.randn(3, 3, 16, 16)
    calls = []
    for column in made:
        column.trunk[0].register_forward_hook(lambda *_, column=column: calls.append(made.index(column)))
    made[2](images, outputs_of(made[:2], images))
    assert calls == [0, 1, 2]
