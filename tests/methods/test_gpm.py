"""GPM: bases by a plain SVD, steps without a component in them, old answers that stay."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lifelong.methods.finetune import Finetune
from lifelong.methods.gpm import GPM, layers, new_directions, patches
from lifelong.methods.method import LearnedTask, Method
from lifelong.methods.plain import plain_sgd
from lifelong.settings.baselines import FinetuneSettings, GPMSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples, image_examples
from tests.made import made_batch, made_split, made_task
from tests.methods.test_par import context

TRAINING = TrainingSettings(epochs=4, batch_size=12, lr=0.02, patience=0)


def learned(method: Method, tasks: int, training: TrainingSettings = TRAINING) -> Iterator[Method]:
    """The method after each task; the tasks are of different kinds, with conflicting labels."""
    for index in range(len(method.tasks), tasks):
        method.learn(made_task(kind=index, seed=index, train=12), context(index, training))
        yield method


def gpm(tasks: int, training: TrainingSettings = TRAINING, **changes) -> GPM:
    method = GPM(GPMSettings(init_channels=4, **changes))
    list(learned(method, tasks, training))
    return method


def spectrum_inputs(d: int, n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -3, d, dtype=torch.float64)
    mix = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    return mix @ (scales[:, None] * torch.randn(d, n, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.97, 0.999])
def test_the_first_task_by_a_plain_svd(threshold):
    R = spectrum_inputs(30, 400, seed=0)
    U, S, _ = torch.linalg.svd(R, full_matrices=False)
    k = next(
        k for k in range(1, 31) if (U[:, :k] @ torch.diag(S[:k]) @ torch.diag(S[:k]) @ U[:, :k].T).trace() >= threshold * R.norm() ** 2
    )
    found = new_directions(R @ R.T, torch.zeros(30, 0, dtype=torch.float64), threshold)
    assert found.shape == (30, k)
    torch.testing.assert_close(found @ found.T, U[:, :k] @ U[:, :k].T, atol=1e-8, rtol=0)


@pytest.mark.parametrize("threshold", [0.9, 0.98])
def test_later_tasks_by_a_plain_svd(threshold):
    """Eq. 9, with R and its projections written out."""
    M = torch.linalg.svd(spectrum_inputs(30, 400, seed=0))[0][:, :4]
    R = spectrum_inputs(30, 300, seed=1)
    rest = R - M @ (M.T @ R)
    U, S, _ = torch.linalg.svd(rest, full_matrices=False)
    shares = [((M.T @ R).norm() ** 2 + (S[:k] ** 2).sum()) / R.norm() ** 2 for k in range(31)]
    k = next(k for k, share in enumerate(shares) if share >= threshold)
    assert k > 0
    found = new_directions(R @ R.T, M, threshold)
    torch.testing.assert_close(found @ found.T, U[:, :k] @ U[:, :k].T, atol=1e-8, rtol=0)
    # The new basis carries the share; with what was found nothing more is missing.
    both = torch.cat([M, found], dim=1)
    assert (both.T @ R).norm() ** 2 >= threshold * R.norm() ** 2
    assert new_directions(R @ R.T, both, threshold).shape == (30, 0)


def test_directions_end_at_the_rank():
    R = spectrum_inputs(12, 5, seed=0)
    empty = torch.zeros(12, 0, dtype=torch.float64)
    assert new_directions(R @ R.T, empty, 1.0).shape == (12, 5)
    assert new_directions(torch.zeros(12, 12, dtype=torch.float64), empty, 0.97).shape == (12, 0)
    full = torch.eye(12, dtype=torch.float64)
    assert new_directions(R @ R.T, full, 1.0).shape == (12, 0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, 1, stride=2, bias=False),
        nn.Conv2d(4, 6, (2, 4), padding=(0, 1), bias=False),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(4, 8, 3, groups=2, bias=False),
        nn.Linear(5, 6, bias=False),
    ],
)
def test_patches_are_what_the_weights_are_multiplied_with(layer):
    inputs = torch.randn(3, 5) if isinstance(layer, nn.Linear) else torch.randn(3, 4, 7, 8)
    rows = patches(layer, inputs)
    if isinstance(layer, nn.Conv2d) and layer.groups == 2:
        per_group = rows.reshape(3, 2, -1, rows.shape[1])
        expected = torch.einsum("ngpd,god->ngop", per_group, layer.weight.reshape(2, 4, -1)).flatten(1, 2)
    else:
        expected = (rows @ layer.weight.flatten(1).T).reshape(3, -1, 6).transpose(1, 2)
    torch.testing.assert_close(expected.flatten(1), layer(inputs).flatten(1))


def test_bases_are_orthonormal_and_grow():
    method = GPM(GPMSettings(init_channels=4))
    widths = []
    for _ in learned(method, 3):
        assert list(method.bases) == [name for name, _ in layers(method.backbone)]
        for name, layer in layers(method.backbone):
            basis = method.bases[name]
            assert basis.shape[0] == layer.weight[0].numel() >= basis.shape[1] > 0
            torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), atol=2e-6, rtol=0)
        widths.append(sum(basis.shape[1] for basis in method.bases.values()))
        assert method.memory() == {"bases": 4 * sum(basis.numel() for basis in method.bases.values())}
    assert widths[0] < widths[1] <= widths[2]


def component(change: Tensor, basis: Tensor) -> Tensor:
    """‖ΔW M‖."""
    return (change.flatten(1).double() @ basis.double()).norm()


@pytest.mark.parametrize("batch_norm", ["shared", "per-task-stats", "per-task"])
def test_a_task_moves_no_weight_within_the_bases(batch_norm):
    """With momentum and weight decay, in the numbers as they are stored; and what cannot be projected stands still."""
    training = TrainingSettings(epochs=4, batch_size=12, lr=0.05, momentum=0.9, weight_decay=0.01, patience=0)
    method = gpm(1, training, plain_sgd=False, batch_norm=batch_norm)
    bases = dict(method.bases)
    before = {name: parameter.clone() for name, parameter in method.backbone.named_parameters()}
    list(learned(method, 2, training))
    moved = 0
    for name, layer in layers(method.backbone):
        change = layer.weight.double() - before.pop(f"{name}.weight").double()
        # Of the weights themselves, which are 10 to 100 times as long as the change, float32 rounds 2^-24.
        assert component(change, bases[name]) <= 1e-6 * change.norm() + 2**-24 * layer.weight.norm()
        moved += change.norm() > 1e-3 * layer.weight.norm()
    assert moved > 10
    # Affine weights of batch norm, shared or the first task's.
    assert before
    after = dict(method.backbone.named_parameters())
    assert all(torch.equal(after[name], old) for name, old in before.items())
    own = {name: parameter for name, parameter in after.items() if ".norms.1." in name}
    assert bool(own) == (batch_norm == "per-task")
    assert all(not torch.equal(parameter, after[name.replace(".norms.1.", ".norms.0.")]) for name, parameter in own.items())


def test_every_single_step_is_orthogonal():
    """One step after another, in float64, where rounding does not hide what momentum and decay would do."""
    method = gpm(1)
    network = method.backbone.double().requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    update = method.update(nn.Identity(), image_examples(made_task()))
    images = torch.randn(8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step in range(4):
        before = {name: layer.weight.detach().clone() for name, layer in layers(network)}
        optimizer.zero_grad()
        network(images + step).square().sum().backward()
        with update(made_batch(images, images.new_zeros(8).long(), images.new_zeros(8).long(), step, 4)):
            optimizer.step()
        for name, layer in layers(network):
            change = layer.weight.detach() - before[name]
            if method.bases[name].shape[1] < len(method.bases[name]):
                assert component(change, method.bases[name]) <= 1e-6 * change.norm()


def drift(method: Method) -> float:
    """How far the second and third task move the first one's answers, relative to how far they lie apart."""
    probe = made_split(3, 8, seed=99, kind=0).images
    next(iter_tasks := learned(method, 3, TRAINING))
    before = method.logits(probe, 0)
    list(iter_tasks)
    return ((method.logits(probe, 0) - before).norm() / before.std(dim=0).norm() / len(probe) ** 0.5).item()


def test_old_answers_stay_where_finetune_changes_them():
    held = drift(GPM(GPMSettings(init_channels=4, batch_norm="per-task-stats", gpm_threshold=0.99, gpm_threshold_step=0.0)))
    lost = drift(Finetune(FinetuneSettings(init_channels=4, batch_norm="per-task-stats")))
    assert held < lost / 4


def test_threshold_grows_over_ten_tasks(monkeypatch):
    seen = []

    def directions(gram, basis, threshold):
        seen.append(threshold)
        return new_directions(gram, basis, threshold)

    monkeypatch.setattr("lifelong.methods.gpm.new_directions", directions)
    method = GPM(GPMSettings(init_channels=2))
    for _ in learned(method, 12, TrainingSettings(epochs=1, batch_size=32)):
        pass
    per_task = seen[:: len(seen) // 12]
    assert per_task == pytest.approx([0.97 + 0.003 * min(task, 9) for task in range(12)])


def test_images_per_layer_of_the_alexnets(monkeypatch):
    """24, 100, 100, 125 and 125 images, all patches of each: 29², 12², 5², 1 and 1."""
    rows = {}

    def counted(layer, inputs):
        out = patches(layer, inputs)
        rows[layer] = rows.get(layer, 0) + len(out)
        return out

    monkeypatch.setattr("lifelong.methods.gpm.patches", counted)
    method = GPM(GPMSettings(init_channels=1, backbone="alexnet-gpm"))
    method.backbone = method.make_network().eval()
    method.tasks = [LearnedTask("made", 3, made_task().normalization)]
    labels = torch.zeros(130, dtype=torch.int64)
    grams = method._grams(Examples(torch.rand(130, 3, 32, 32), labels, torch.rand(0, 3, 32, 32), labels[:0]), 0)
    assert list(rows.values()) == [24 * 29**2, 100 * 12**2, 100 * 5**2, 125, 125]
    assert [len(gram) for gram in grams.values()] == [48, 9, 8, 16, 32]


def test_plain_sgd_keeps_the_length_of_the_steps():
    made = plain_sgd(TrainingSettings(lr=0.01, momentum=0.9, weight_decay_grid=(0.1,)))
    assert (made.lr, made.momentum, made.weight_decay, made.weight_decay_grid) == (pytest.approx(0.1), 0.0, 0.0, ())
    assert plain_sgd(TrainingSettings(lr=0.05, momentum=0.0)).lr == 0.05


def test_state_round_trip():
    method = gpm(2)
    again = GPM(method.settings)
    again.load_state_dict(method.state_dict())
    assert again.memory() == method.memory()
    probe = made_split(3, 2, seed=5).images
    for task in (0, 1):
        assert torch.equal(again.logits(probe, task), method.logits(probe, task))
    for one in (method, again):
        list(learned(one, 3))
    assert torch.equal(again.logits(probe, 1), method.logits(probe, 1))
