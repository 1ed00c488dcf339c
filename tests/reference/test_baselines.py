"""The codes of the baselines on the same tensors: recordings of several repositories."""

import pytest
import torch
from torch import Tensor, nn

from lifelong.data.task import Normalization
from lifelong.experiment.metrics import average_forgetting, average_performance, backward_transfer, maximal_forgetting, weighted_accuracy
from lifelong.methods import agem, gpm
from lifelong.methods.distillation import distillation_loss
from lifelong.methods.ewc import EWC, batched_fisher, exact_fisher, labelled_fisher
from lifelong.methods.hat import HAT, annealed, compensation
from lifelong.methods.importance import Quadratic
from lifelong.methods.mas import output_sensitivity, squared_batch_sensitivity
from lifelong.methods.method import LearnedTask
from lifelong.networks.alexnet import AlexNet
from lifelong.networks.gates import joined, with_gates
from lifelong.settings.baselines import EWCSettings, HATSettings
from lifelong.training.examples import Examples
from tests.reference.given import Given
from tests.reference.recordings import Named, Recording, recording

pytestmark = pytest.mark.usefixtures("in_float64")


TASK = LearnedTask("a", 4, Normalization((0.5, 0.5, 0.5), (1.0, 1.0, 1.0)))


def flat(named: Named) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in named.values()])


def small_network(recorded: Recording) -> tuple[nn.Module, nn.Module, Examples]:
    """A convolution, a linear layer and a head, with the weights and images of a recording."""
    weights, images, labels = recorded.named("in/weights"), recorded["in/images"] / 255 - 0.5, recorded["in/labels"]
    backbone = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(45, 6), nn.ReLU()).eval()
    head = nn.Linear(6, 4)
    backbone.load_state_dict({name.replace("conv.", "0.").replace("fc.", "3."): w for name, w in weights.items() if "head" not in name})
    head.load_state_dict({name.removeprefix("head."): weight for name, weight in weights.items() if "head" in name})
    return backbone, head, Examples(images, labels, images, labels)


def test_batched_fisher() -> None:
    """Of three batches of eight, in the order of the recording, whatever order is drawn; the mean with that of two tasks; the penalty."""
    recorded = recording("ewc-batched-fisher")
    network, head, examples = small_network(recorded)
    drawn = torch.randperm(24, generator=torch.Generator().manual_seed(0)).argsort()
    shuffled = Examples(examples.train[drawn], examples.train_labels[drawn], examples.valid, examples.valid_labels)
    fisher = batched_fisher(network, head, shuffled, 8, torch.Generator().manual_seed(0))
    recorded.holds(fisher, flat(recorded.named("out/fisher")))
    method = EWC(EWCSettings(penalty="average", fisher="batched"))
    method.tasks = [TASK] * 3  # the third has just been learned
    anchor = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    merged = method.merged(Quadratic(fisher, anchor), Quadratic(flat(recorded.named("in/newest")), anchor))
    recorded.holds(merged.importance, flat(recorded.named("out/merged")))
    weights = flat(recorded.named("in/moved")).requires_grad_()
    penalty = method.scale * 3000.0 * merged(weights)
    penalty.backward()
    recorded.holds(penalty.detach(), recorded["out/penalty"])
    recorded.holds(weights.grad, flat(recorded.named("out/gradient")))


def test_exact_fisher() -> None:
    """With all labels, and with the true ones. The code divides by the last index instead of the number of images, 24."""
    recorded = recording("ewc-exact-fisher")
    network, head, examples = small_network(recorded)
    recorded.holds(exact_fisher(network, head, examples) * 24 / 23, flat(recorded.named("out/all")))
    recorded.holds(labelled_fisher(network, head, examples, examples.train_labels) * 24 / 23, flat(recorded.named("out/true")))


def test_mas() -> None:
    recorded = recording("mas-importance")
    recorded.holds(output_sensitivity(*small_network(recorded)), flat(recorded.named("out/importance")))


def test_mas_of_par() -> None:
    recorded = recording("mas-par-code")
    found = squared_batch_sensitivity(*small_network(recorded), torch.arange(24).split(8))
    recorded.holds(found, flat(recorded.named("out/importance")))


def test_lwf_loss() -> None:
    """Three heads read the features as they are, so that gradients are those of logits."""
    recorded = recording("lwf-loss")
    student, teacher = ([recorded[f"in/{who}{k}"] for k in range(count)] for who, count in (("student", 3), ("teacher", 2)))
    logits = torch.cat(student, dim=1)

    class Part(nn.Module):
        def __init__(self, start: int, stop: int) -> None:
            super().__init__()
            self.part = slice(start, stop)

        def forward(self, features: Tensor) -> Tensor:
            return features[:, self.part]

    class Network(nn.Module):
        """Gives what its parameter holds: the teacher's logits when the loss is made, the student's in the step."""

        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.cat([*teacher, student[2]], dim=1))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.logits[inputs.flatten().long()]

    heads, network, rows = [Part(0, 4), Part(4, 7), Part(7, 12)], Network(), torch.arange(10.0)[:, None]
    examples = Examples(rows, recorded["in/labels"], rows, recorded["in/labels"])
    loss = distillation_loss(network, heads[2], heads[:2], examples, weight=2.0, temperature=2.0)
    with torch.no_grad():
        network.logits.copy_(logits)
    value = loss(Given(rows, examples.train_labels).batch(torch.arange(10)))
    value.backward()
    recorded.holds(value.detach(), recorded["out/loss"])
    recorded.holds(network.logits.grad, torch.cat([recorded[f"out/gradient{k}"] for k in range(3)], dim=1))


def test_agem_projection() -> None:
    """Eight pairs of gradients, three of them opposed; of each the 60 numbers are those of two parameters."""
    recorded = recording("agem-projection")
    pairs = zip(recorded["in/gradient"], recorded["in/reference"], strict=True)
    found = [torch.cat(agem.project(gradient.split([20, 40]), reference.split([20, 40]))) for gradient, reference in pairs]
    recorded.holds(torch.stack(found), recorded["out/projected"])
    assert ((recorded["in/gradient"] * recorded["in/reference"]).sum(dim=1) < 0).sum() == 3


def projector(basis: Tensor) -> Tensor:
    return basis @ basis.T


def test_gpm_bases() -> None:
    """Three layers, three tasks; a basis is compared by its projection. At the first task the code takes one direction fewer than Eq. 5."""
    recorded = recording("gpm-bases")
    for layer in range(3):
        inputs = [recorded[f"in/inputs{task}{layer}"] for task in range(3)]
        bases = [recorded[f"out/basis{task}{layer}"] for task in range(3)]
        first = gpm.new_directions(inputs[0] @ inputs[0].T, torch.zeros(len(inputs[0]), 0), 0.9)
        assert first.shape[1] == bases[0].shape[1] + 1
        recorded.holds(projector(first[:, :-1]), projector(bases[0]))
        for task in (1, 2):
            old = bases[task - 1]
            new = gpm.new_directions(inputs[task] @ inputs[task].T, old, 0.95)
            recorded.holds(projector(torch.cat([old, new], dim=1)), projector(bases[task]))
    assert recorded["out/basis10"].shape == recorded["out/basis20"].shape
    recorded.holds(gpm.project_out(recorded["in/gradient"], recorded["out/basis10"]), recorded["out/projected"])


def test_gpm_patches() -> None:
    recorded = recording("gpm-patches")
    recorded.holds(gpm.patches(nn.Conv2d(2, 5, 3), recorded["in/maps"]).T, recorded["out/columns"])


def units(name: str) -> str:
    """Our name of a parameter of HAT's AlexNet, but for its heads."""
    ours = {"c1": "convs.0", "c2": "convs.1", "c3": "convs.2", "fc1": "linears.0", "fc2": "linears.1"}
    layer, kind = name.split(".")
    return f"{ours[layer.removeprefix('e')]}.{'relu.embeddings' if layer.startswith('e') else f'weights.{kind}'}"


class SmallHAT(HAT[HATSettings]):
    def make_network(self) -> nn.Module:
        network = with_gates(AlexNet(1), self.settings.s_max, binary=False)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return network


def test_hat_steps() -> None:
    """Two steps on a second task, at the scales of an epoch's start and middle; protection by masks between 0 and 1; all weights."""
    recorded = recording("hat-steps")
    start, after = recorded.named("in/weights"), recorded.named("out/weights")
    method = SmallHAT(HATSettings(backbone="alexnet-hat", s_max=20.0, binary_masks=False, batch_norm="shared"))
    method.backbone = method.make_network()
    method.add_task(method.backbone)
    heads = [nn.Linear(32, classes) for classes in (3, 4)]
    parameters = dict(method.backbone.named_parameters())

    def ours(name: str, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Our parameters with the code's values: an embedding has a row for each task."""
        if name.startswith("last"):
            _, task, kind = name.split(".")
            return [(getattr(heads[int(task)], kind), weight)]
        if name.startswith("e"):
            return [(parameters[f"{units(name)}.{task}"], row) for task, row in enumerate(weight)]
        return [(parameters[units(name)], weight)]

    with torch.no_grad():
        for name, weight in start.items():
            for mine, theirs in ours(name, weight):
                mine.copy_(theirs)
    method.tasks, method.heads = [TASK], nn.ModuleList(heads[:1])
    trained = nn.ModuleList([method.backbone, heads[1]]).requires_grad_(True)
    for parameter in method.fixed_parameters(method.backbone, 1):
        parameter.requires_grad_(False)
    images, labels = recorded["in/images"] / 255 - 0.5, recorded["in/labels"]
    given, examples = Given(images, labels), Examples(images, labels, images, labels)
    loss, update = method.loss(heads[1], examples), method.update(heads[1], examples)
    optimizer = torch.optim.SGD([parameter for parameter in trained.parameters() if parameter.requires_grad], lr=0.05)
    losses = []
    for step in range(2):
        batch = given.batch(torch.arange(2 * step, 2 * step + 2), step, 3)  # 0 and 1/2 of an epoch
        trained.train()
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        with update(batch):
            optimizer.step()
        losses.append(value.detach())
    recorded.holds(torch.stack(losses), recorded["out/losses"])
    pairs = [pair for name, weight in after.items() for pair in ours(name, weight)]
    recorded.holds(torch.cat([mine.detach().flatten() for mine, _ in pairs]), torch.cat([theirs.flatten() for _, theirs in pairs]))
    method.backbone.eval()
    with torch.no_grad():
        recorded.holds(heads[0](method.features(images, 0)), recorded["out/earlier"])
        recorded.holds(heads[1](method.features(images, 1)), recorded["out/newest"])


def test_hat_compensation() -> None:
    recorded = recording("hat-compensation")
    found = torch.stack([compensation(recorded["in/embedding"], scale, 400.0) for scale in recorded["in/scale"]])
    recorded.holds(found, recorded["out/factor"])


def test_cat_free_weights() -> None:
    """Between two layers of 50 and 100 units, by the masks of four tasks, some similar; twelve times. The page counts the differences."""
    recorded = recording("cat-free-weights")
    bits = recorded["out/free"][:, None] >> torch.arange(8) & 1
    theirs = bits.bool().view(12, 100, 50)
    only_here = only_there = 0
    for masks, similar, free in zip(recorded["in/masks"].double(), recorded["in/similar"].bool(), theirs, strict=True):
        held = torch.cat([masks[~similar], torch.zeros(1, 150)]).amax(dim=0)
        ours = joined(held[50:], held[:50], torch.zeros(100, 50)) == 0
        only_here += int((ours & ~free).sum())
        only_there += int((free & ~ours).sum())
        for used in masks[~similar]:
            assert not (ours & (joined(used[50:], used[:50], torch.zeros(100, 50)) == 1)).any()
    assert recorded.allowed == only_here + only_there
    assert f"{only_here:,} of 60,000 weights are free only in this library, {only_there:,} only in CAT's code" in recorded.row.part


def runs(recorded: Recording) -> list[list[list[float]]]:
    """Four matrices of accuracies on five tasks, without what is above the diagonal."""
    return [[row[: task + 1] for task, row in enumerate(matrix)] for matrix in recorded["in/accuracy"].tolist()]


def test_metrics_of_par() -> None:
    recorded = recording("metrics-par")
    recorded.holds(torch.tensor([average_performance(run) for run in runs(recorded)]), recorded["out/ap"])
    recorded.holds(torch.tensor([average_forgetting(run) for run in runs(recorded)]), recorded["out/af"])


def test_metrics_of_gem() -> None:
    """Its code divides by the number of tasks, as PAR's; its paper's BWT leaves out the last."""
    recorded = recording("metrics-gem")
    recorded.holds(torch.tensor([average_performance(run) for run in runs(recorded)]), recorded["out/final"])
    recorded.holds(torch.tensor([average_forgetting(run) for run in runs(recorded)]), recorded["out/backward"])
    recorded.holds(torch.tensor([backward_transfer(run) * 4 / 5 for run in runs(recorded)]), recorded["out/backward"])


def test_metrics_of_facil() -> None:
    """Its weights are numbers of classes."""
    recorded = recording("metrics-facil")
    sizes = recorded["in/classes"].tolist()
    recorded.holds(torch.tensor([maximal_forgetting(run) for run in runs(recorded)]), recorded["out/forgetting"])
    recorded.holds(torch.tensor([weighted_accuracy(run, sizes) for run in runs(recorded)]), recorded["out/weighted"])


def test_hat_annealing() -> None:
    """The code's scales of ten batches are ours of eleven without the last: at the end of an epoch it has not reached the largest."""
    recorded = recording("hat-annealing")
    batches, largest = int(recorded["in/images"] / recorded["in/batch"]), recorded["in/largest"].item()
    found = torch.stack([annealed(torch.tensor(float(step)), batches + 1, largest) for step in range(batches)])
    recorded.holds(found, recorded["out/scale"])
    assert recorded["out/scale"][-1] < 0.91 * largest
    assert annealed(torch.tensor(batches - 1.0), batches, largest) == largest
