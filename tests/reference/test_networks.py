"""Networks of reference codes on the same tensors, with the same weights, and what chooses among them."""

import pytest
import torch
from torch import Tensor

from lifelong.networks.blocks import make_chain
from lifelong.networks.progressive import Column, outputs_of
from lifelong.networks.resnet import LightResNet
from lifelong.search.neighbors import nearest_labels
from tests.reference.recordings import recording

pytestmark = pytest.mark.usefixtures("in_float64")


def joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def of_resnet(name: str) -> str:
    """Our name of a parameter of the light ResNet-18 in PAR's code, whose groups are numbered from 1."""
    if not name.startswith("layer"):
        return name
    group, rest = name.removeprefix("layer").split(".", 1)
    return f"layers.{int(group) - 1}.{rest}"


def test_light_resnet18() -> None:
    """Features in training mode, gradients of all weights, and features in evaluation mode after that batch."""
    recorded = recording("light-resnet18")
    network = LightResNet(3, stem_pool=True)
    parameters, weights = dict(network.named_parameters()), recorded.named("in/weights")
    assert {of_resnet(name) for name in weights} == set(parameters)
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[of_resnet(name)].copy_(weight)
    features = network.train()(recorded.pixels())
    recorded.holds(features.detach(), recorded["out/train"])
    (features * recorded["in/direction"]).sum().backward()
    gradients = recorded.named("out/gradient")
    recorded.holds(joined([parameters[of_resnet(name)].grad for name in gradients]), joined(list(gradients.values())))
    with torch.no_grad():
        recorded.holds(network.eval()(recorded.pixels()), recorded["out/eval"])


LATERALS = {"": "block", "_scale": "lateral.alpha", "_r": "lateral.reduce", "_u": "lateral.block"}
"""The parts of a level of a column in PAR's code, and here."""


def of_column(name: str) -> tuple[int, str]:
    """The column of a parameter of PAR's progressive network, from 0, and our name of it in that column.

    Laterals are numbered from the second column on.
    """
    part, number, rest = name.split(".", 2)
    for suffix, ours in list(LATERALS.items())[::-1]:
        if part.endswith(suffix):
            part, column = part.removesuffix(suffix), int(number) + bool(suffix)
            break
    if part in ("conv1", "bn1"):
        return column, f"trunk.0.block.{part.removesuffix('1')}.{rest}"
    level = "head" if part == "fc" else f"trunk.{part.removeprefix('layer')}"
    group = ".group" if part == "layer4" and suffix in ("", "_u") else ""
    return column, f"{level}.{ours}{group}" + ("" if suffix == "_scale" else f".{rest}")


def test_pnn_second_column() -> None:
    """Logits of two columns, and the gradients of the second, which PAR's code takes in training mode but for the laterals' scales."""
    recorded = recording("pnn-second-column")
    chain = make_chain("light-resnet18", 2, stem_pool=True)
    columns = [Column(chain, 3, 0), Column(chain, 4, 1)]
    parameters = [dict(column.named_parameters()) for column in columns]
    weights = recorded.named("in/weights")
    assert sorted(map(of_column, weights)) == sorted((number, name) for number, named in enumerate(parameters) for name in named)
    with torch.no_grad():
        for name, weight in weights.items():
            column, ours = of_column(name)
            parameters[column][ours].copy_(weight.view_as(parameters[column][ours]))
    columns[0].eval()
    images = recorded.pixels()
    logits = columns[1].train()(images, outputs_of(columns[:1], images))
    recorded.holds(logits.detach(), recorded["out/train"])
    (logits * recorded["in/direction"]).sum().backward()
    gradients = recorded.named("out/gradient")
    recorded.holds(joined([parameters[1][of_column(name)[1]].grad for name in gradients]), joined(list(gradients.values())))
    with torch.no_grad():
        recorded.holds(columns[1].eval()(images, outputs_of(columns[:1], images)), recorded["out/eval"])
        recorded.holds(columns[0](images, []), recorded["out/first"])


def test_mntdp_source() -> None:
    """Fifteen neighbors on the features of four earlier networks: every answer, and the network whose answers are right most often."""
    recorded = recording("mntdp-source")
    labels, asked = recorded["in/labels"], recorded["in/valid_labels"]
    answers = [nearest_labels(recorded[f"in/features{k}"], labels, recorded[f"in/valid{k}"], 15) for k in range(4)]
    recorded.holds(torch.stack(answers), recorded["out/answers"])
    right = torch.stack([(answer == asked).double().mean() for answer in answers])
    assert right.argmax() == recorded["out/source"]
