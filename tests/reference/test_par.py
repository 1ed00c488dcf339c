"""PAR's code on the same tensors: recordings of WenjinW/PAR."""

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lifelong.data.task import Augmentation, Normalization, Split
from lifelong.methods.distillation import distillation_loss, soft_cross_entropy
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V1, NODES, OPERATIONS, CellPlan, Genotype
from lifelong.networks.supernet import SampledPath, SuperNetwork
from lifelong.relatedness.bank import PrototypeBank, Prototypes, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.relatedness.groups import TaskGroups, task_distances
from lifelong.search import mdl
from lifelong.search.distribution import Distribution, derive
from lifelong.settings.par import PARSettings
from lifelong.settings.presets import PRESETS
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.optimizer import SGD
from lifelong.training.stages import Stage
from tests.reference.given import Given
from tests.reference.recordings import Named, Recording, recording

pytestmark = pytest.mark.usefixtures("in_float64")

CODE = PARSettings(**PRESETS["authors-code"][PARSettings])


def ours(name: str) -> str:
    """Our name of a parameter of PAR's code: of an expert, or of the network of a search. Ours have no module for a leading ReLU."""
    name = re.sub(r"_ops\.(\d+)\._ops\.(\d+)\.", r"edges.\1.\2.", name)
    name = re.sub(r"_ops\.(\d+)\.", lambda found: f"nodes.{int(found[1]) // 2}.{int(found[1]) % 2}.", name)
    name = re.sub(r"\.op\.(\d+)\.", lambda found: f".body.{int(found[1]) - 1}.", name)
    name = re.sub(r"^classifier\.", "head.", name)
    for part, other in (("conv_1", "even"), ("conv_2", "odd"), ("bn", "bn")):  # of a factorized reduction
        name = name.replace(f".{part}.", f".body.{other}.")
    return name


def load(network: nn.Module, weights: Named) -> None:
    """Copy weights of PAR's code into a network, all of them."""
    parameters = dict(network.named_parameters())
    assert {ours(name) for name in weights} == set(parameters)
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[ours(name)].copy_(weight)


def joined(named: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in named])


def tasks(recorded: Recording, numbers: Iterable[int]) -> list[tuple[Tensor, Tensor, Prototypes]]:
    """Features, labels and prototypes of tasks; task 5 has the images of task 4 in finer classes, and task 6 one of its classes so."""
    found = []
    for task in numbers:
        features, labels = recorded[f"in/features{task}"], recorded[f"in/labels{task}"]
        found.append((features, labels, prototypes(features, labels, int(labels.max()) + 1)))
    return found


def test_prototypes() -> None:
    recorded = recording("par-prototypes")
    numbers = (0, 2)
    for task, (_, _, own) in zip(numbers, tasks(recorded, numbers), strict=True):
        recorded.holds(own.means, recorded[f"out/means{task}"])


def distances_of(recorded: Recording, settings: PARSettings) -> tuple[Tensor, Tensor]:
    """The distance of each task from each other, and what PAR's code computed, in rows."""
    every, expected = tasks(recorded, range(7)), recorded["out/distances"]
    found, theirs = [], []
    for task, (features, labels, own) in enumerate(every):
        bank = PrototypeBank()
        others = [other for other in range(7) if other != task]
        for other in others:
            bank.add(every[other][2])
        found.append(task_distances(divergences(features, labels, own, bank, settings), settings))
        theirs.append(expected[task, others])
    return torch.stack(found), torch.stack(theirs)


def test_distances() -> None:
    """Of each task from each other. One is 0, and therefore 1: of task 4 from task 5, which has its images in finer classes."""
    recorded = recording("par-distances")
    found, theirs = distances_of(recorded, CODE)
    recorded.holds(found, theirs)
    assert (theirs == 1).sum() == 1


def test_the_same_task() -> None:
    """Of a task whose images come again the class means are those known: a distance of 0 but for rounding, which PAR's code calls 1."""
    recorded = recording("par-same-task")
    found = []
    for features, labels, own in tasks(recorded, range(3)):
        bank = PrototypeBank()
        bank.add(own)
        found.append(task_distances(divergences(features, labels, own, bank, CODE), CODE))
        assert task_distances(divergences(features, labels, own, bank, PARSettings()), PARSettings()).item() < 1e-12
    recorded.holds(torch.cat(found), recorded["out/distances"])


@pytest.mark.parametrize("setting", ["clamp", "zero_is_far"])
def test_distances_by_default(setting: str) -> None:
    recorded = recording("par-distances")
    recorded.differs(setting, *distances_of(recorded, by_default(setting)))


def by_default(*names: str) -> PARSettings:
    """The settings of the preset `authors-code`, some of them as they are by default."""
    return replace(CODE, **{name: getattr(PARSettings(), name) for name in names})


def decisions(recorded: Recording, settings: PARSettings) -> tuple[Tensor, Tensor]:
    """What is decided about each task, its group, and whether its head alone is trained; and the same of PAR's code, in rows."""
    found = []
    tables = (recorded[f"in/{key}"] for key in ("divergences", "groups", "largest", "samples"))
    for table, groups, largest, samples in zip(*tables, strict=True):
        members = [(groups == group).nonzero().flatten().tolist() for group in range(int(groups.max()) + 1)]
        known = TaskGroups(members, largest[: len(members)].tolist())
        decision = known.decide(table[~table.isnan()], int(samples), settings)
        kind = ("reuse-expert", "reuse-cell", "search").index(decision.decision)
        found.append((kind, decision.group, int(decision.frozen)))
    theirs = torch.stack([recorded[f"out/{key}"] for key in ("kind", "expert", "head_only")], dim=1)
    return torch.tensor(found), theirs


def test_decisions() -> None:
    """On 400 tables of divergences of up to eight tasks in groups, every fourth with ties, and from 2 to 1,000 training images."""
    recorded = recording("par-decisions")
    recorded.holds(*decisions(recorded, CODE))


@pytest.mark.parametrize("setting", ["map_before_mean", "zero_is_far", "freeze_ratio", "tiny_task"])
def test_decisions_by_default(setting: str) -> None:
    recorded = recording("par-decisions")
    found, theirs = decisions(recorded, by_default(setting))
    recorded.counts(setting, (found != theirs).any(dim=1))


OTHER = Genotype(
    normal=(
        (("dil_conv_3x3", 0), ("avg_pool_3x3", 1)),
        (("max_pool_3x3", 2), ("dil_conv_3x3", 1)),
        (("skip_connect", 3), ("sep_conv_3x3", 0)),
        (("avg_pool_3x3", 4), ("dil_conv_3x3", 3)),
    ),
    reduce=(
        (("skip_connect", 0), ("sep_conv_3x3", 1)),
        (("dil_conv_3x3", 1), ("avg_pool_3x3", 2)),
        (("dil_conv_3x3", 3), ("skip_connect", 1)),
        (("max_pool_3x3", 4), ("sep_conv_3x3", 2)),
    ),
)
"""What DARTS_V1 lacks: dilation, pools in a normal cell, convolutions and skips of stride 2."""


@pytest.mark.parametrize(("name", "cell", "sizes"), [("par-cell-network", DARTS_V1, (12, 8)), ("par-other-cell-network", OTHER, (12,))])
def test_cell_network(name: str, cell: Genotype, sizes: tuple[int, ...]) -> None:
    """Features in training mode, then, with the running statistics of that batch, in evaluation mode; of DARTS_V1 gradients too."""
    recorded = recording(name)
    for size in sizes:
        network = CellNetwork(cell, 4, reduce_bn=False)
        load(network, recorded.named("in/weights"))
        features = network.train()(recorded.pixels(f"in/images{size}"))
        recorded.holds(features.detach(), recorded[f"out/train{size}"])
        if size == 12 and name == "par-cell-network":
            (features * recorded[f"in/direction{size}"]).sum().backward()
            parameters = dict(network.named_parameters())
            gradients = recorded.named("out/gradient")
            found = [weight.grad for weight in (parameters[ours(key)] for key in gradients)]
            # The batch norm that the code makes and does not apply has none.
            assert sum(gradient is None for gradient in found) == sum(not gradient.any() for gradient in gradients.values()) == 4
            both = [(mine, theirs) for mine, theirs in zip(found, gradients.values(), strict=True) if mine is not None]
            recorded.holds(joined(mine for mine, _ in both), joined(theirs for _, theirs in both))
        with torch.no_grad():
            recorded.holds(network.eval()(recorded.pixels(f"in/images{size}")), recorded[f"out/eval{size}"])


def test_factorized_reductions_by_default() -> None:
    """They have a batch norm, which the code makes and does not apply."""
    recorded = recording("par-other-cell-network")
    network = CellNetwork(OTHER, 4, reduce_bn=PARSettings().reduce_bn)
    load(network, recorded.named("in/weights"))
    with torch.no_grad():
        recorded.differs("reduce_bn", network.train()(recorded.pixels("in/images12")), recorded["out/train12"])


@pytest.mark.parametrize("name", ["par-distillation-loss", "par-smoothed-distillation-loss"])
def test_distillation_loss(name: str) -> None:
    """With the code's function as it is used, which adds 1e-5 / C to the student's probabilities, and without that."""
    recorded = recording(name)
    student = recorded["in/student"].requires_grad_()
    loss = soft_cross_entropy(student, recorded["in/teacher"], 2.0)
    loss.backward()
    recorded.holds(loss.detach(), recorded["out/loss"])
    recorded.holds(student.grad, recorded["out/gradient"])


def test_distillation() -> None:
    """Three steps of Eq. 7-9 with two earlier heads: the losses, and all weights after them."""
    recorded = recording("par-distillation")
    weights, after = recorded.named("in/weights"), recorded.named("out/weights")
    expert = CellNetwork(DARTS_V1, 4, reduce_bn=False)
    load(expert, {name.removeprefix("experts.0."): weight for name, weight in weights.items() if name.startswith("experts.")})
    heads = nn.ModuleList(nn.Linear(16, classes) for classes in (3, 4, 2))
    heads.load_state_dict({name.removeprefix("fc."): weight for name, weight in weights.items() if name.startswith("fc.")})
    heads[:2].requires_grad_(False)
    images, labels = recorded.pixels(), recorded["in/labels"]
    examples = Examples(images.flatten(0, 1), labels.flatten(), images[0], labels[0])
    loss = distillation_loss(expert, heads[2], list(heads[:2]), examples, weight=1.0, temperature=2.0)
    trained = nn.ModuleList([expert, heads[2]]).train()
    optimizer = SGD(trained.parameters(), lr=0.05, momentum=0.9, weight_decay=0.003)
    losses = []
    given = Given(examples.train, examples.train_labels)
    for indices in torch.arange(labels.numel()).split(labels.shape[1]):
        optimizer.zero_grad()
        value = loss(given.batch(indices))
        value.backward()
        nn.utils.clip_grad_norm_(optimizer.parameters, 10.0)
        optimizer.step()
        losses.append(value.detach())
    recorded.holds(torch.stack(losses), recorded["out/losses"])
    mine = dict(expert.named_parameters()) | {f"fc.{name}": weight for name, weight in heads.named_parameters()}
    recorded.holds(joined(mine[ours(name.removeprefix("experts.0."))] for name in after), joined(after.values()))


def test_mdl_update() -> None:
    """Probabilities of both cells in the course of 24 sampled networks of given accuracies."""
    recorded = recording("par-mdl-update")
    cells, kept = (Distribution(), Distribution()), recorded["in/rounds"].tolist()
    for index, (plans, accuracy) in enumerate(zip(recorded["in/selected"], recorded["in/accuracy"], strict=True)):
        for cell, plan in zip(cells, plans, strict=True):
            cell.learn(tuple(plan.tolist()), accuracy.item(), 0.01, "softmax")
        if index in kept:
            recorded.holds(torch.stack([cell.probabilities for cell in cells]), recorded["out/probabilities"][kept.index(index)])


def test_mdl_update_by_default() -> None:
    """Nothing pulls probabilities back to chance."""
    recorded = recording("par-mdl-update")
    cells = Distribution(), Distribution()
    for plans, accuracy in zip(recorded["in/selected"], recorded["in/accuracy"], strict=True):
        for cell, plan in zip(cells, plans, strict=True):
            cell.learn(tuple(plan.tolist()), accuracy.item(), 0.01, PARSettings().search_projection)
    found = torch.stack([cell.probabilities for cell in cells])
    recorded.differs("search_projection", found, recorded["out/probabilities"][-1])


def plan_of(cell: Tensor) -> CellPlan:
    """A cell of PAR's code, which lists the two edges of a node by probability; ours are listed by source."""
    edges = [(OPERATIONS[operation], source) for operation, source in cell.tolist()]
    nodes = (sorted(edges[2 * node : 2 * node + 2], key=lambda edge: edge[1]) for node in range(NODES))
    return tuple((first, second) for first, second in nodes)


def test_mdl_cell() -> None:
    """Of both kinds, from twenty random tables."""
    recorded = recording("par-mdl-cell")
    found = [[derive(table, None).plan for table in pair] for pair in recorded["in/probabilities"]]
    assert recorded.allowed == 0
    assert found == [[plan_of(cell) for cell in pair] for pair in recorded["out/cell"]]


def test_mdl_ties() -> None:
    """A search that has learned nothing: the same operation everywhere, the first; of equal edges the code takes what `topk` names."""
    recorded = recording("par-mdl-ties")
    mine, theirs = derive(recorded["in/probabilities"], None).plan, plan_of(recorded["out/cell"])
    assert {operation for node in (*mine, *theirs) for operation, _ in node} == {"max_pool_3x3"}
    assert all([source for _, source in node] == [0, 1] for node in mine)
    assert sum(one != other for one, other in zip(mine, theirs, strict=True)) == recorded.allowed


class GivenImages(mdl._Images):
    """Images of a search that need no preparing."""

    given: Given

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.given.images[indices], self.given.labels[indices]


def trained_search(recorded: Recording, settings: PARSettings = CODE) -> tuple[SuperNetwork, list[SampledPath], list[float]]:
    """Take two steps on each of two sampled networks, as a search does, and return its network, what was sampled, and the losses."""
    images, labels = recorded.pixels(), recorded["in/labels"]
    settings = replace(settings, search_lr=0.05, search_epochs=1)
    network = SuperNetwork(3, 2, 3, reduce_bn=False, running_bn=settings.search_bn == "running")
    load(network, recorded.named("in/weights"))
    blank = Split(torch.zeros(labels.numel(), 3, 8, 8, dtype=torch.uint8), labels.flatten())
    source = GivenImages(blank, Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), Augmentation(), torch.Generator())
    object.__setattr__(source, "given", Given(images.flatten(0, 1), labels.flatten()))
    search = mdl._CellSearch(
        network,
        source,
        settings,
        TrainingSettings(batch_size=4, weight_decay=0.03),
        Stage("search", 0),
        (mdl.Distribution(), mdl.Distribution()),
    )
    paths = [(tuple(normal), tuple(reduce)) for normal, reduce in recorded["in/paths"].tolist()]
    batches = torch.arange(labels.numel()).split(labels.shape[1])

    def loss(path: SampledPath, batch: Tensor) -> float:
        search._train([batch], path)
        return search.loss_sum.item() / len(batch)

    losses = [loss(path, batch) for path in paths for batch in batches[:2]]
    return network, paths, losses


def test_search() -> None:
    """Losses of four steps, weights after them, and the logits by which a sampled network is judged."""
    recorded = recording("par-search")
    network, paths, losses = trained_search(recorded)
    recorded.holds(torch.tensor(losses), recorded["out/losses"])
    start, moved, parameters = recorded.named("in/weights"), recorded.named("out/moved"), dict(network.named_parameters())
    recorded.holds(joined(parameters[ours(name)] for name in moved), joined(moved.values()))
    for name, weight in start.items():
        assert name in moved or torch.equal(parameters[ours(name)], weight)
    with torch.no_grad():
        judged = torch.stack([network.eval()(recorded.pixels()[2], path) for path in paths])
    recorded.holds(judged, recorded["out/logits"])


@pytest.mark.parametrize("setting", ["search_bn", "search_idle"])
def test_search_by_default(setting: str) -> None:
    """Both differences at once would hide that each is there."""
    recorded = recording("par-search")
    network, paths, _ = trained_search(recorded, by_default(setting))
    if setting == "search_bn":
        with torch.no_grad():
            judged = torch.stack([network.eval()(recorded.pixels()[2], path) for path in paths])
        recorded.differs(setting, judged, recorded["out/logits"])
    else:
        moved, parameters = recorded.named("out/moved"), dict(network.named_parameters())
        recorded.differs(setting, joined(parameters[ours(name)] for name in moved), joined(moved.values()))
