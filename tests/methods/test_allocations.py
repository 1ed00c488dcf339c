"""Allocations: those of the paper, against the ablations of its Table 5, and what PAR makes of others."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

import lifelong
from lifelong.data.task import Task
from lifelong.errors import ConformanceError, LifelongError
from lifelong.methods.allocations import Allocation, Fixed, Newcomer, RandomCell
from lifelong.methods.chosen_cells import BestOfK, MostParameters, candidates, known_distribution
from lifelong.methods.conformance import made_context
from lifelong.methods.method import LearnRecord
from lifelong.methods.par import PAR
from lifelong.methods.single import new_head
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V1, DARTS_V2, EDGES, OPERATIONS, Genotype
from lifelong.relatedness.groups import TaskGroups, needs_distances
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import ALLOCATIONS
from lifelong.settings.training import TrainingSettings
from lifelong.storage import load_tree, save_tree
from lifelong.training.examples import image_examples
from lifelong.training.fit import fit
from tests.made import made_task

SMALL = PARSettings(init_channels=2, search_epochs=1, cells=2, extractor="pixels")
TRAINING = TrainingSettings(epochs=1, batch_size=8, lr=0.05)

TASK = made_task()


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers is known only in it."""
    before = dict(ALLOCATIONS._entries)
    yield
    ALLOCATIONS._entries = before


def tasks() -> list[Task]:
    """Two unlike each other, and one like the first."""
    return [made_task(kind=0, seed=1), made_task(kind=5, seed=2), made_task(kind=0, seed=3)]


def learned(settings: PARSettings, training: TrainingSettings = TRAINING) -> tuple[PAR, list[LearnRecord]]:
    method = PAR(settings)
    return method, [method.learn(task, made_context(index, training)) for index, task in enumerate(tasks())]


@pytest.mark.parametrize(
    ("allocation", "ablation"),
    [
        ({"allocation": "fixed"}, {"variant": "fixed+regularization"}),
        ({"allocation": "fixed", "variant": "fine"}, {"variant": "fixed"}),
        ({"allocation": "searched", "variant": "regularization"}, {"variant": "regularization-searched"}),
        ({"allocation": "searched"}, {"variant": "fine+regularization"}),
        ({"allocation": "nearest-cell"}, {"variant": "par", "beta": 1.0}),
    ],
)
def test_the_rows_of_table_5(allocation, ablation) -> None:
    """Who shares an expert is the variant's, which cell a new one gets is the allocation's: together they are rows of the table."""
    (one, said), (other, wanted) = learned(replace(SMALL, **allocation)), learned(replace(SMALL, **ablation))
    decided = [(record.decision, record.expert, record.genotype, record.parameters_added) for record in said]
    assert decided == [(record.decision, record.expert, record.genotype, record.parameters_added) for record in wanted]
    for ours, theirs in zip(one.experts, other.experts, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("allocation", "variant", "needed"),
    [("fixed", "fine", False), ("searched", "coarse+fine", False), ("nearest-cell", "fixed", True), ("fixed", "par", True)],
)
def test_distances_are_measured_where_they_are_looked_at(allocation, variant, needed) -> None:
    assert needs_distances(replace(SMALL, allocation=allocation, variant=variant)) == needed


def test_random_cells_are_drawn_evenly() -> None:
    """Of five operations each has a fifth of the edges, and a node's sources are any two of those before it."""
    cells = [Genotype.parse(random_cell(seed, task)) for seed in range(40) for task in range(2)]
    edges = [edge for cell in cells for plan in (cell.normal, cell.reduce) for node in plan for edge in node]
    counts = Counter(operation for operation, _ in edges)
    # 1280 edges: 256 of each, with a standard deviation of 14.3.
    assert set(counts) == set(OPERATIONS) - {"none"}
    assert all(abs(count - 256) < 4 * 14.3 for count in counts.values())
    sources = Counter(source for cell in cells for _, source in cell.normal[3])
    # 160 of the last node's: 32 of each of five; without replacement their variance is less than 25.6.
    assert sorted(sources) == [0, 1, 2, 3, 4]
    assert all(abs(count - 32) < 4 * 5.1 for count in sources.values())
    assert len(set(cells)) == len(cells)
    assert random_cell(3, 1) == random_cell(3, 1)


def random_cell(seed: int, task: int) -> str:
    context, decision = replace(made_context(task), seed=seed), TaskGroups().decide(None, 3, replace(SMALL, variant="fine"))
    return RandomCell().plan(Newcomer(TASK, image_examples(TASK), [], [], decision, SMALL, context, LearnRecord()))


def test_an_expert_starts_from_the_weights_that_it_is_given() -> None:
    """Steps of no length: the second expert has the weights of the first, and the third those of its nearest."""
    still = replace(TRAINING, lr=1e-30)
    method, records = learned(replace(SMALL, allocation="warm-start", variant="fine"), still)
    plain, _ = learned(replace(SMALL, allocation="nearest-cell", variant="fine"), still)
    # Biases begin at zero, and move by 1e-30.
    first, second, third = (list(expert.parameters()) for expert in method.experts)
    for weights in (second, third):
        torch.testing.assert_close(weights, first, rtol=0, atol=1e-20)
    assert not all(torch.equal(a, b) for a, b in zip(first, plain.experts[1].parameters(), strict=True))
    assert [record.decision for record in records] == ["search", "reuse-cell", "reuse-cell"]


class StartsAt(lifelong.methods.allocations.BestStart):
    """One of the starts of the allocation best-start, alone."""

    place = 0

    def starts(self, newcomer):
        found = super().starts(newcomer)
        return found[min(self.place, len(found) - 1) :][:1]


def test_the_best_of_several_starts_is_what_it_would_be_alone() -> None:
    """The third task, from random weights and from each of two experts: the most accurate is kept, equal to the bit to that start alone."""
    longer = replace(TRAINING, epochs=3)
    best, records = learned(replace(SMALL, allocation="best-start", variant="fine"), longer)
    said = records[2].reason.partition("best of 3 starts on validation images: ")[2]
    shares = [float(part.split()[-1].rstrip("%")) / 100 for part in said.split(", ")]
    assert next(part.rpartition(" ")[0] for part in said.split(", ")) == "random weights"
    chosen = shares.index(max(shares))
    accuracy = records[2].hyperparameters["valid_accuracy"]
    assert accuracy == pytest.approx(max(shares), abs=6e-4)
    assert records[2].seconds["attempts"] > 0
    assert "attempts" not in records[0].seconds
    # The same start by itself, on a model that knows the same two tasks.
    alone = type("Alone", (StartsAt,), {"place": chosen})
    lifelong.register_allocation("alone", alone)
    method = PAR(replace(SMALL, allocation="alone", variant="fine"))
    third, context = tasks()[2], made_context(2, longer)
    for index, task in enumerate(tasks()[:2]):
        method.learn(task, made_context(index, longer))
    method.experts, method.heads = list(best.experts[:2]), list(best.heads[:2])
    record = method.learn(third, context)
    assert record.hyperparameters["valid_accuracy"] == accuracy
    for a, b in zip(method.experts[2].parameters(), best.experts[2].parameters(), strict=True):
        assert torch.equal(a, b)


def test_starts_are_the_nearest_groups() -> None:
    """Three groups at 0.4, 0.1, 0.4: the second, and the first of two equally near ones. Without groups there is one start."""
    decision = replace(TaskGroups().decide(None, 3, CHOSEN), group=1, group_distances=(0.4, 0.1, 0.4), distance=0.1)
    newcomer = Newcomer(TASK, image_examples(TASK), [], ["a", "b", "c"], decision, CHOSEN, made_context(0), LearnRecord())
    allocation = lifelong.methods.allocations.BestStart()
    assert list(allocation.starts(newcomer)) == [None, 1, 0]
    assert list(allocation.starts(replace(newcomer, settings=replace(CHOSEN, starts=1)))) == [None, 1]
    assert (newcomer.starting(2).nearest, newcomer.starting(2).distance) == (2, 0.4)
    assert (newcomer.starting(None).nearest, newcomer.starting(None).distance) == (None, None)
    assert allocation.plan(newcomer.starting(2)) == "c"
    assert allocation.plan(newcomer.starting(None)) == str(DARTS_V1)
    nothing = replace(decision, group=None, distance=None, group_distances=())
    assert list(allocation.starts(replace(newcomer, decision=nothing))) == [None]


def test_starts_cannot_be_compared_without_validation_images() -> None:
    none = [made_task(kind=0, seed=1, valid=0), made_task(kind=5, seed=2, valid=0)]
    method = PAR(replace(SMALL, allocation="best-start", variant="fine", feature_split="train"))
    records = [method.learn(task, made_context(index, TRAINING)) for index, task in enumerate(none)]
    assert "no validation images to compare 2 starts by, the first is used" in records[1].reason


class Adapted(nn.Module):
    """A small layer on a frozen one that all experts share."""

    def __init__(self, trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.trunk, self.adapter = trunk, nn.Sequential(nn.Linear(48, width), nn.ReLU())
        self.feature_dim = width

    def forward(self, images):
        return self.adapter(self.trunk(images))


class Adapters(Allocation):
    """Adapters on a pretrained network, which is made once."""

    by_distance = False

    def __init__(self) -> None:
        layer = nn.Linear(192, 48)
        nn.init.orthogonal_(layer.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(layer.bias)
        self.trunk = nn.Sequential(nn.Flatten(), layer).requires_grad_(False)

    def plan(self, newcomer):
        return f"adapter of {newcomer.settings.init_channels * 2}"

    def build(self, plan, settings):
        return Adapted(self.trunk, int(plan.rpartition(" ")[2]))


def test_an_expert_need_not_be_a_cell_network(tmp_path) -> None:
    """What of it is not to be trained stays, also when tasks share it, and after a file."""
    lifelong.register_allocation("adapters", Adapters)
    method, records = learned(replace(SMALL, allocation="adapters"))
    assert [record.decision for record in records] == ["allocate", "allocate", "reuse-expert"]
    assert [record.genotype for record in records] == [None] * 3
    assert records[0].reason == "first task: new expert by the allocation 'adapters'"
    trunk, adapter, head = 192 * 48 + 48, 48 * 4 + 4, 4 * 3 + 3
    assert [record.parameters_added for record in records] == [trunk + adapter + head, adapter + head, head]
    made = Adapters().trunk[1].weight
    assert all(torch.equal(expert.trunk[1].weight, made) for expert in method.experts)
    save_tree(tmp_path / "state", method.state_dict())
    again = PAR(method.settings)
    again.load_state_dict(load_tree(tmp_path / "state"))
    images = made_task(kind=0, seed=1).test.images
    assert torch.equal(again.logits(images, 2), method.logits(images, 2))
    before = method.experts[0].adapter[0].weight.clone()
    again.attach_extractor(made_context(3).extractor)
    more = [model.learn(made_task(kind=0, seed=4), made_context(3, TRAINING)) for model in (method, again)]
    assert [record.decision for record in more] == ["reuse-expert"] * 2
    assert again.experts[0].trunk is again.experts[1].trunk
    assert torch.equal(again.experts[0].trunk[1].weight, made)
    assert torch.equal(again.experts[0].adapter[0].weight, method.experts[0].adapter[0].weight)
    assert not torch.equal(again.experts[0].adapter[0].weight, before)


def test_a_run_of_experts_that_are_no_cells(tmp_path) -> None:
    lifelong.register_allocation("adapters", Adapters)
    stream = "digits?tasks=2&train_per_class=6&valid_per_class=4&test_per_class=4"
    few = {"preset": "quick", "epochs": 1, "init_channels": 2, "device": "cpu", "variant": "fine", "allocation": "adapters"}
    summary = lifelong.run(stream, out=tmp_path / "run", **few)
    assert [task["decision"] for task in summary["tasks"]] == ["allocate"] * 2
    assert "allocate → expert 1" in (tmp_path / "run" / "report.html").read_text()
    assert len(lifelong.Learner.load(tmp_path / "run").predict(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))) == 2


class Unplanned(Fixed):
    def plan(self, newcomer):
        return None


class Lines(Fixed):
    def plan(self, newcomer):
        return "one\ntwo"


class Unbuilt(Fixed):
    def build(self, plan, settings):
        return plan


class Unmeasured(Fixed):
    def build(self, plan, settings):
        return nn.Flatten()


class Changing(Fixed):
    """Lets the new expert be the nearest one, rather than a copy."""

    by_distance = True

    def start(self, expert, newcomer):
        if newcomer.nearest is not None:
            expert.stem = newcomer.experts[newcomer.nearest].stem.requires_grad_(True)


class Unseeded(Fixed):
    def start(self, expert, newcomer):
        generator = torch.Generator()
        generator.seed()
        expert.stem[0].weight.data.normal_(generator=generator)


@pytest.mark.parametrize(
    ("allocation", "line"),
    [
        (Unplanned, "allocation 'broken': planned None; it must plan a line of text"),
        (Lines, "must plan a line of text"),
        (Unbuilt, "built a str; it must build a torch.nn.Module"),
        (Unmeasured, "feature_dim = None"),
        (Changing, "allocation 'broken': the expert of task 1 changes that of task 0"),
        (Unseeded, "the same seed gave another result"),
    ],
)
def test_an_allocation_that_breaks_its_contract(allocation, line) -> None:
    lifelong.register_allocation("broken", allocation)
    with pytest.raises((ConformanceError, LifelongError), match=line):
        lifelong.check_allocation("broken", images=3)


SLOW = ("best-start", "best-of-k", "most-parameters", "synflow", "naswot", "zico", "az-nas", "search-warm", "light-resnet18")


@pytest.mark.parametrize("name", ["warm-start", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_allocations_of_this_library_keep_their_contract(name: str) -> None:
    lifelong.check_allocation(name, images=3)


CHOSEN = replace(SMALL, variant="fine", candidates=3)


def test_the_best_of_k_is_the_most_accurate_of_its_candidates() -> None:
    """Each of them is trained here by itself, as the allocation says that it does."""
    task, context = made_task(kind=0, seed=1), made_context(0, TRAINING)
    record = LearnRecord()
    newcomer = Newcomer(task, image_examples(task), [], [], TaskGroups().decide(None, 3, CHOSEN), CHOSEN, context, record)
    chosen = BestOfK().plan(newcomer)
    accuracies = []
    for number, cell in enumerate(candidates(newcomer)):
        with context.seeded("candidate"):
            expert = CellNetwork(cell, 2, 2)
        network = nn.Sequential(expert, new_head(expert, task, context))
        short = replace(TRAINING, epochs=CHOSEN.candidate_epochs, patience=0)
        accuracies.append(fit(network, image_examples(task), network, short, context.stage(f"candidate-{number}")).accuracy)
    assert chosen == str(candidates(newcomer)[accuracies.index(max(accuracies))])
    assert record.seconds["search"] > 0
    assert "best of 3 random cells after 2 epochs" in record.reason


def test_most_parameters_chooses_the_largest() -> None:
    task = made_task(kind=0, seed=1)
    context = made_context(0, TRAINING)
    newcomer = Newcomer(task, image_examples(task), [], [], TaskGroups().decide(None, 3, CHOSEN), CHOSEN, context, LearnRecord())
    sizes = [sum(weight.numel() for weight in CellNetwork(cell, 2, 2).parameters()) for cell in candidates(newcomer)]
    assert len(set(sizes)) > 1
    assert MostParameters().plan(newcomer) == str(candidates(newcomer)[sizes.index(max(sizes))])


def test_cheap_choices_cost_time_and_add_no_search(tmp_path) -> None:
    """They say what they cost, and their expert is trained from the weights that it would have anyway."""
    method, records = learned(replace(CHOSEN, allocation="naswot"))
    assert [record.decision for record in records] == ["reuse-cell"] * 3
    assert all(record.seconds["search"] > 0 for record in records)
    assert records[0].reason.endswith("best of 3 random cells by naswot")
    fixed, _ = learned(replace(SMALL, variant="fixed", fixed_cell=records[0].genotype or ""))
    assert all(torch.equal(a, b) for a, b in zip(method.experts[0].parameters(), fixed.experts[0].parameters(), strict=True))


def test_a_search_begins_with_the_cells_that_there_are() -> None:
    """An edge that both cells have, with two operations: half of an even sixth, and a quarter for each of the two."""
    cells = [DARTS_V1.normal, DARTS_V2.normal]
    start = known_distribution(cells).probabilities
    assert torch.allclose(start.sum(dim=1), torch.ones(len(EDGES), dtype=torch.float64))
    # The first node's edge from the first input has a separable convolution in both; the last node's from node 1 nothing in either.
    row = start[EDGES.index((0, 0))]
    assert row[OPERATIONS.index("sep_conv_3x3")] == pytest.approx(1 / 12 + 1 / 2)
    assert row[OPERATIONS.index("none")] == pytest.approx(1 / 12)
    assert torch.equal(start[EDGES.index((3, 3))], torch.full((6,), 1 / 6, dtype=torch.float64))
    # Into the last node from node 0: a skip connection in the first, a dilated convolution in the second.
    last = start[EDGES.index((3, 2))]
    assert last[OPERATIONS.index("skip_connect")] == last[OPERATIONS.index("dil_conv_3x3")] == pytest.approx(1 / 12 + 1 / 4)


def test_the_first_search_is_an_ordinary_one() -> None:
    warm, _ = learned(replace(CHOSEN, allocation="search-warm", search_epochs=3))
    cold, _ = learned(replace(CHOSEN, allocation="searched", search_epochs=3))
    assert warm.plans[0] == cold.plans[0]
    assert warm.plans[1:] != cold.plans[1:]
