"""Networks of reference codes on the same tensors, with the same weights, and what chooses among them."""

import pytest
import torch
from torch import Tensor, nn

from lifelong.methods.lmc import Samples, outlyingness
from lifelong.networks.blocks import make_chain
from lifelong.networks.composition import Routing, make_module
from lifelong.networks.growing_resnet import Mixture
from lifelong.networks.progressive import Column, outputs_of
from lifelong.networks.resnet import LightResNet
from lifelong.networks.softgates import Gate, SoftPool
from lifelong.relatedness.neighbors import nearest_labels
from lifelong.search.growth import ALPHA_BETAS
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
    suffix = next(suffix for suffix in reversed(LATERALS) if part.endswith(suffix))
    part, column, ours = part.removesuffix(suffix), int(number) + bool(suffix), LATERALS[suffix]
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


def test_lmc_routing() -> None:
    """The weights of three modules for forty images, without and with the batch prior."""
    recorded = recording("lmc-routing")
    recorded.holds(Routing(0.1).weights(recorded["in/losses"]), recorded["out/plain"])
    recorded.holds(Routing(1.0, 0.1).weights(recorded["in/losses"]), recorded["out/prior"])


def test_lmc_growth() -> None:
    """Twelve layers of three modules, each with twelve batches of a training: how far the farthest lies, and whether a module is added."""
    recorded = recording("lmc-growth")
    tested = Samples([torch.arange(96).view(12, 8)])
    found = []
    for losses, means, deviations in zip(recorded["in/losses"], recorded["in/mean"], recorded["in/deviation"], strict=True):
        modules = [make_module(make_chain("conv4", 2), 0) for _ in means]
        for module, mean, deviation in zip(modules, means, deviations, strict=True):
            module.loss_mean.copy_(mean)
            module.loss_std.copy_(deviation * 8**0.5)  # of images; the recorded one is of the means of eight
        found.append(outlyingness(modules, losses, tested))
    recorded.holds(torch.tensor(found), recorded["out/farthest"])
    assert torch.equal(torch.tensor(found) > recorded["in/threshold"], recorded["out/added"].bool())
    assert 2 < recorded["out/added"].sum() < 10


def test_learn_to_grow_choice() -> None:
    """A relaxed convolution with two variants: its maps, its price, gradients, and a step of the choices' logits."""
    recorded = recording("learn-to-grow-choice")

    def convolution(name: str) -> nn.Conv2d:
        made = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        made.weight.data.copy_(recorded[f"in/{name}"])
        return made

    mixture = Mixture(convolution("new"), [convolution("variant0"), convolution("variant1")])
    with torch.no_grad():
        mixture.alpha.copy_(recorded["in/alpha"])
        for number, adapter in enumerate(mixture.adapters.parameters()):
            adapter.copy_(recorded[f"in/adapter{number}"])
    optimizer = torch.optim.Adam([mixture.alpha], lr=0.01, betas=ALPHA_BETAS, weight_decay=3e-4)
    maps, size = mixture(recorded["in/maps"]), mixture.expected_size()
    recorded.holds(maps.detach(), recorded["out/maps"])
    recorded.holds(size.detach(), recorded["out/size"])
    ((maps * recorded["in/direction"]).sum() + size).backward()
    optimizer.step()
    recorded.holds(mixture.alpha.grad, recorded["out/gradient_alpha"])
    recorded.holds(torch.stack([adapter.grad for adapter in mixture.adapters.parameters()]), recorded["out/gradient_adapters"])
    recorded.holds(mixture.new.weight.grad, recorded["out/gradient_new"])
    recorded.holds(mixture.alpha.detach(), recorded["out/after"])


class PlainGate(Gate):
    """A convolution, a ReLU and a linear layer, as in the recording."""

    def __init__(self, inputs: int, modules: int) -> None:
        nn.Module.__init__(self)
        self.body = nn.Sequential(nn.Conv2d(inputs, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, modules))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).softmax(dim=1)


def test_sgf_mixture() -> None:
    """Two positions, with pools of two and of three modules, of which the last is new: maps, and gradients of it and of the gates."""
    recorded = recording("sgf-mixture")
    weights, gradients = recorded.named("in/weights"), recorded.named("out/gradient")
    pools, trained = [], {}
    for position, (inputs, count) in enumerate(((2, 2), (3, 3))):
        modules = [nn.Conv2d(inputs, 3, 3, padding=1) for _ in range(count)]
        gate = PlainGate(inputs, count)
        pools.append(SoftPool(modules[:-1], modules[-1], gate))
        named = {f"modules.{position}.{j}.{kind}": getattr(module, kind) for j, module in enumerate(modules) for kind in ("weight", "bias")}
        of_gate = {f"gates.{position}.{name}": parameter for name, parameter in gate.body.named_parameters()}
        with torch.no_grad():
            for name, parameter in (named | of_gate).items():
                parameter.copy_(weights[name])
        trained |= of_gate | {name: named[name] for name in list(named)[-2:]}
    maps = pools[0](recorded["in/maps"])
    recorded.holds(maps.detach(), recorded["out/first"])
    maps = pools[1](maps)
    recorded.holds(maps.detach(), recorded["out/second"])
    (maps * recorded["in/direction"]).sum().backward()
    recorded.holds(joined([parameter.grad for parameter in trained.values()]), joined([gradients[name] for name in trained]))
