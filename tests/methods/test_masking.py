"""PackNet, WSN and SupSup: shares and densities of their papers, weights that stay, answers that keep their bits, bytes."""

import math

import pytest
import torch
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.methods.masking import MaskingMethod, updating
from lifelong.methods.packnet import PackNet, smallest
from lifelong.methods.registry import make_method
from lifelong.methods.restoring import restore
from lifelong.methods.state_checks import Recorded
from lifelong.methods.supsup import SupSup, density, signed
from lifelong.methods.wsn import WSN, selected
from lifelong.networks.masks import Owners, TaskMasks, largest, masked, unpack
from lifelong.settings.masks import PackNetSettings, SupSupSettings, WSNSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import image_examples
from tests.made import made_batch, made_split, made_task
from tests.methods.test_conformance import small_settings
from tests.methods.test_par import context

NAMES = ("packnet", "wsn", "supsup")

TRAINING = TrainingSettings(epochs=2, batch_size=18, lr=0.05, momentum=0.9, weight_decay=0.1, patience=0)
"""With what would move weights without a gradient."""


def learn(method: MaskingMethod, tasks: int) -> MaskingMethod:
    for index in range(len(method.tasks), tasks):
        method.learn(made_task(kind=index, seed=index, train=12), context(index, TRAINING))
    return method


def answers(method: MaskingMethod, task: int) -> Tensor:
    return method.logits(made_split(3, 8, seed=77, kind=task).images, task)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"use_weight_decay": True}) for name in NAMES),
        ("packnet", {"batch_norm": "frozen"}),
        ("wsn", {"batch_norm": "frozen"}),
        ("packnet", {"batch_norm": "per-task-stats"}),
        ("supsup", {"batch_norm": "per-task", "score_start": "mean"}),
    ],
)
def test_old_answers_keep_their_bits(name, options):
    """With momentum and weight decay; and the second task has learned something."""
    method = make_method(name, small_settings(name, **options))
    first = answers(learn(method, 1), 0)
    second = answers(learn(method, 2), 1)
    learn(method, 3)
    assert torch.equal(answers(method, 0), first)
    assert torch.equal(answers(method, 1), second)
    assert answers(method, 2).std(dim=0).max() > 0


@pytest.mark.parametrize(("name", "backbone"), [("packnet", "alexnet-hat"), ("wsn", "alexnet-hat"), ("supsup", "alexnet-gpm")])
def test_networks_with_biases_keep_them(name, backbone):
    method = make_method(name, small_settings(name, backbone=backbone))
    split = made_split(2, 6, seed=5, size=32)
    answers = []
    for index in range(2):
        method.learn(Task(f"task {index}", ["a", "b"], lambda name: split), context(index, TRAINING))
        answers.append(method.logits(split.images, 0))
    assert torch.equal(*answers)


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_packnet_leaves_a_power_of_the_share(share):
    """Task k owns (1 - p) p^(k-1) of each layer, up to rounding, and p^k is left."""
    method = PackNet(PackNetSettings(init_channels=6, pruned_share=share))
    for tasks in (1, 2, 3):
        learn(method, tasks)
        for weight, owners in masked(method.backbone, Owners).values():
            owner, count = owners.get(), weight.numel()
            for number in range(1, tasks + 1):
                assert int((owner == number).sum()) == pytest.approx((1 - share) * share ** (number - 1) * count, abs=2)
            assert int((owner == 0).sum()) == pytest.approx(share**tasks * count, abs=2)
            assert not weight.flatten()[owner == 0].any()


def test_packnet_prunes_the_smallest_of_its_own():
    weight = torch.tensor([3.0, -1.0, 0.5, -4.0, 0.1, 2.0])
    among = torch.tensor([True, True, True, True, False, False])
    assert smallest(weight, among, 0.5).tolist() == [False, True, True, False, False, False]
    assert smallest(torch.zeros(6), among, 0.5).tolist() == [True, True, False, False, False, False]  # exactly so many of equal ones
    assert not smallest(weight, torch.zeros(6, dtype=torch.bool), 0.5).any()


def test_packnet_retrains_what_it_keeps():
    """Half as many epochs, at a tenth of the rate."""
    settings = PackNet(PackNetSettings()).retraining(TrainingSettings(epochs=30, lr=0.5))
    assert (settings.epochs, settings.lr) == (15, pytest.approx(0.05))
    record = PackNet(PackNetSettings(init_channels=4)).learn(made_task(), context(0, TRAINING))
    assert record.epochs == 3
    assert {"train", "retrain"} <= record.seconds.keys()


@pytest.mark.parametrize("p", [0.5, 0.75, 0.03])
def test_wsn_selects_by_the_rank_of_the_code(p):
    """Scores of at least the value at rank 1 + round(p (n - 1)), counted from the smallest."""
    scores = torch.randn(57, generator=torch.Generator().manual_seed(1))
    threshold = scores.abs().sort().values[round(p * 56)]
    assert torch.equal(largest(scores, selected(57, p)), scores.abs() >= threshold)


def test_wsn_trains_only_what_no_earlier_task_uses():
    method = learn(WSN(WSNSettings(init_channels=6, masked_share=0.7, use_weight_decay=True)), 2)
    before = {name: weight.clone() for name, (weight, _) in masked(method.backbone, TaskMasks).items()}
    used = {name: masks.union(2).view_as(weight) for name, (weight, masks) in masked(method.backbone, TaskMasks).items()}
    scores = dict(method.scores)
    learn(method, 3)
    reused = 0
    for name, (weight, masks) in masked(method.backbone, TaskMasks).items():
        assert torch.equal(weight[used[name]], before[name][used[name]])
        assert (weight != before[name])[~used[name]].any()
        mask = unpack(masks.bits, masks.count)
        assert mask.sum(dim=1).tolist() == [selected(masks.count, 0.7)] * 3
        assert torch.equal(mask[2].view_as(weight), largest(method.scores[name], selected(masks.count, 0.7)))
        assert not torch.equal(scores[name], method.scores[name])
        reused += int((mask[2].view_as(weight) & used[name]).sum())
    assert reused > 0


def test_a_step_moves_free_weights_only():
    """Though the optimizer would move all by a weight decay; and the gradient of the others is not part of a norm that is clipped."""
    layer = nn.Linear(2, 1, bias=False)
    weight, lr = layer.weight, 0.1
    with torch.no_grad():
        weight.copy_(torch.tensor([[2.0, 3.0]]))
    free = torch.tensor([[False, True]])
    weight.grad = torch.tensor([[10.0, 20.0]])
    examples = image_examples(made_task())
    with updating([(weight, free)])(made_batch(examples.train, examples.train_labels, examples.train_labels, 0, 1)):
        assert weight.grad.tolist() == [[0.0, 20.0]]
        with torch.no_grad():
            weight -= lr * (weight.grad + 5 * weight)  # with a weight decay of 5
    torch.testing.assert_close(weight.detach(), torch.tensor([[2.0, 3.0 - 0.1 * (20 + 15)]]))


@pytest.mark.parametrize(
    ("shape", "scale", "wanted"),
    [
        ((64, 64, 3, 3), 1.0, 128 / 36_864),
        ((64, 64, 3, 3), 32.0, 32 * 128 / 36_864),
        ((64, 3, 3, 3), 32.0, 0.5),
        ((10, 64), 2.0, 148 / 640),
    ],
)
def test_supsup_densities(shape, scale, wanted):
    assert density(torch.zeros(shape), scale) == pytest.approx(wanted)


def affine(network: nn.Module) -> list[tuple[str, Tensor]]:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return [found for norm in norms for found in norm.named_parameters()]


def test_supsup_never_trains_a_weight():
    method = learn(SupSup(SupSupSettings(init_channels=6, density_scale=1.0)), 1)
    state = {name: tensor.clone() for name, tensor in method.backbone.state_dict().items() if not name.endswith(".bits")}
    for name, (weight, masks) in masked(method.backbone, TaskMasks).items():
        fan = weight[0].numel()
        torch.testing.assert_close(weight.abs(), torch.full_like(weight, math.sqrt(2 / fan)), msg=name)
        outputs, inputs = weight.shape[:2]
        assert int(unpack(masks.bits[0], masks.count).sum()) == round(min(0.5, (outputs + inputs) / weight.numel()) * weight.numel())
    learn(method, 2)
    now = method.backbone.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in state.items())
    assert all(torch.equal(norm, torch.full_like(norm, float(name.endswith("weight")))) for name, norm in affine(method.backbone))
    assert method.num_parameters() == sum(p.numel() for p in method.backbone.parameters()) + 2 * (3 * 6 + 3)


def test_supsup_keeps_the_variance_of_a_relu_network():
    weight = signed(torch.randn(400, 300, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(2000, 300, generator=torch.Generator().manual_seed(1)).relu()
    assert (x @ weight.T).var() / x.pow(2).mean() == pytest.approx(2.0, rel=0.05)


def test_supsup_starts_from_the_mean_of_earlier_scores():
    method = SupSup(SupSupSettings(init_channels=4, score_start="mean"))
    learned: list[dict[str, Tensor]] = []
    ends = TaskMasks.end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskMasks, "end", lambda masks: learned[-1].setdefault(str(len(learned[-1])), ends(masks)))
        for tasks in (1, 2, 3):
            learned.append({})
            learn(method, tasks)
    for place, mean in enumerate(method.mean.values()):
        torch.testing.assert_close(mean, sum(scores[str(place)] for scores in learned) / 3)


@pytest.mark.parametrize("name", NAMES)
def test_bytes(name):
    """Masks, statistics of batch norms, and scores that learning needs; parameters are the network's and the heads'."""
    method = learn(make_method(name, small_settings(name)), 3)
    weights = [layer.weight.numel() for layer in method.backbone.modules() if isinstance(layer, nn.Conv2d)]
    bits = [math.ceil(count / 8) for count in weights]
    channels = 20 * 4  # a batch norm for each of 20 convolutions
    wanted = {"masks": (2 if name == "packnet" else 3) * sum(bits), "statistics": 3 * channels * 2 * 4}
    if name == "wsn":
        wanted["scores"] = 4 * sum(weights)
    assert method.memory() == wanted
    norms = channels * 2 * (1 if name == "supsup" else 3)
    assert method.num_parameters() == sum(weights) + norms + 3 * (3 * 4 + 3)


@pytest.mark.parametrize("change", ["name", "shape", "missing"])
def test_scores_of_other_weights_are_refused(change):
    method = learn(make_method("wsn", small_settings("wsn")), 1)
    state = method.state_dict()
    first = next(iter(state["scores"]))
    wrong = {"name": {"other": torch.zeros(3)}, "shape": {first: torch.zeros(3)}, "missing": {}}[change]
    scores = state["scores"] | wrong
    if change == "missing":
        del scores[first]
    recorded = [Recorded(method.tasks[0].name, 3, 8)]
    with pytest.raises(LifelongError, match="not the scores of a masked weight"):
        restore(make_method("wsn", small_settings("wsn")), state | {"scores": scores}, "cpu", "here", recorded)
