"""Every registered measure: its contract, what must not change it, and its formula against an independent computation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors as Neighbors
from torch import nn

import lifelong
from lifelong.data.task import Normalization, Split, Task
from lifelong.errors import LifelongError
from lifelong.methods.par_pretrained import make_par
from lifelong.relatedness import autoencoder_measure
from lifelong.relatedness.assessment import Relatedness
from lifelong.relatedness.autoencoder_measure import trained_autoencoder
from lifelong.relatedness.experts import EarlierExperts
from lifelong.relatedness.feature_measures import KernelMean, NeighborKL, PrototypeCosine, Subspace
from lifelong.relatedness.gate import relatedness as gate_relatedness
from lifelong.relatedness.gaussian_measures import DiagonalFrechet, Frechet, Mahalanobis, packed, unpacked
from lifelong.relatedness.measures import LeaveOneOutKL, PrototypeKL, Sample, keeps_prototypes, measure_divergences
from lifelong.relatedness.subsamples import first_half, held_out
from lifelong.settings.par import PARSettings, RelatednessSettings
from lifelong.settings.sockets import MEASURES
from lifelong.storage import load_tree, save_tree
from tests.relatedness.plain import plain_divergences
from tests.relatedness.test_assessment import EXTRACTOR, TASKS, make_task, run

SETTINGS = RelatednessSettings(keep_features=True)
NAMES = [name for name in MEASURES if MEASURES.built_in(name)]
OF_FEATURES = [name for name in NAMES if not MEASURES[name].needs_experts]
OF_EXPERTS = [name for name in NAMES if MEASURES[name].needs_experts]
ROTATABLE = [name for name in OF_FEATURES if name not in ("frechet-diagonal", "autoencoder", "mmd")]
"""Neither the diagonal of a covariance, nor an auto-encoder with a sigmoid, nor random frequencies are the same after a rotation."""

SCALE = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(autouse=True)
def _shorter(monkeypatch):
    """A third of an auto-encoder's steps are enough for these tasks."""
    monkeypatch.setattr(autoencoder_measure, "STEPS", 100)


def made(seed, family=0, classes=4, each=40, length=12, spread=1.0):
    """A sample of Gaussian classes, shuffled; a family shares its classes."""
    centres = 3 * torch.randn(classes, length, generator=torch.Generator().manual_seed(family)) + 2
    generator = torch.Generator().manual_seed(100 + seed)
    labels = (torch.arange(classes * each) % classes)[torch.randperm(classes * each, generator=generator)]
    features = centres[labels] + spread * torch.randn(len(labels), length, generator=generator)
    return Sample(features, labels, classes, each)


def measured(name, new, earlier):
    """Distances of a sample from earlier ones, by a measure's own map."""
    measure, kept = MEASURES[name](), []
    for sample in earlier:
        kept.append(measure.keep(replace(sample, first=kept[0] if kept else None), SETTINGS))
    return measure.to_distance(measure_divergences(name, replace(new, first=kept[0] if kept else None), kept, SETTINGS)).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_keeps_the_contract(name):
    lifelong.check_measure(name)


def test_all_of_them_are_here():
    assert {"prototype-kl", "knn-kl", "frechet", "mmd", "leep", "logme", "h-score", "autoencoder", "nearest-neighbors"} < set(NAMES)
    assert OF_EXPERTS == ["leep", "logme", "h-score", "nearest-neighbors"]
    assert [name for name in NAMES if keeps_prototypes(name)] == ["prototype-kl", "prototype-kl-loo", "cosine"]


@pytest.mark.parametrize("name", OF_FEATURES)
class TestOfFeatures:
    """Measures of frozen features."""

    def test_the_same_classes_drawn_again_are_near_and_others_far(self, name):
        same, other = measured(name, made(3), [made(1), made(2, family=7)])
        assert same < 0.2
        assert other > same + 0.15

    def test_a_task_is_at_no_distance_from_itself(self, name):
        # Eq. 2 counts each image's own share in its prototype, on both sides; leaving it out on one side makes the estimate negative.
        (same,) = measured(name, made(1), [made(1)])
        assert same == pytest.approx(0, abs=1e-6)

    def test_half_of_the_images_give_about_the_same(self, name):
        earlier = [made(1, each=160), made(2, family=7, each=160)]
        whole, half = measured(name, made(3, each=160), earlier), measured(name, made(3, each=80), earlier)
        assert half == pytest.approx(whole, abs=0.1)

    def test_the_order_of_classes_does_not_matter(self, name):
        new, earlier = made(3), [made(1), made(2, family=7)]
        swapped = [replace(sample, labels=torch.tensor([2, 0, 3, 1])[sample.labels]) for sample in (new, *earlier)]
        assert measured(name, swapped[0], swapped[1:]) == pytest.approx(measured(name, new, earlier), abs=1e-6)

    def test_the_first_task_has_no_distances(self, name):
        assert measured(name, made(1), []) == []

    def test_a_few_images_of_a_class_are_enough(self, name):
        found = measured(name, made(3, each=2), [made(1, each=1), made(2, each=3)])
        assert all(0 <= value <= 1 for value in found)

    def test_a_task_of_equal_images_and_one_of_a_single_image(self, name):
        equal = Sample(torch.full((6, 5), 0.5), torch.arange(6) % 2, 2, 3)
        single = Sample(torch.full((1, 5), 2.0), torch.zeros(1, dtype=torch.int64), 1, 1)
        if name == "prototype-kl-loo":
            with pytest.raises(LifelongError, match="two images or more"):
                measured(name, single, [equal])
        else:
            assert all(0 <= value <= 1 for value in measured(name, single, [equal, single]))
        assert all(0 <= value <= 1 for value in measured(name, equal, [single, equal]))


@pytest.mark.parametrize("name", ROTATABLE)
def test_a_rotation_of_the_features_changes_nothing(name):
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(2)).double()).Q
    new, earlier = made(3), [made(1), made(2, family=7)]
    turned = [replace(sample, features=sample.features.double() @ rotation) for sample in (new, *earlier)]
    assert measured(name, turned[0], turned[1:]) == pytest.approx(measured(name, new, earlier), abs=1e-5)


def test_leave_one_out_is_the_setting():
    kept = [PrototypeKL().keep(made(seed), SETTINGS) for seed in (1, 2)]
    found = LeaveOneOutKL().divergences(made(3), kept, SETTINGS)
    assert torch.equal(found, PrototypeKL().divergences(made(3), kept, replace(SETTINGS, leave_one_out=True)))
    plain = [(sample.features, sample.labels, 4) for sample in (made(3), made(1), made(2))]
    assert found.tolist() == pytest.approx(plain_divergences(*plain[0], plain[1:], leave_one_out=True), abs=1e-9)


def test_eq_1_by_scikit_learn_and_against_the_known_divergence_of_gaussians():
    found = []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        new = torch.randn(1500, 2, generator=generator)
        earlier = 1.5 * torch.randn(1800, 2, generator=generator) + 0.4
        sample = Sample(new, torch.zeros(1500, dtype=torch.int64), 1, 1500)
        found.append(2 * float(NeighborKL().divergences(sample, [earlier], SETTINGS)))
    x, y = new.double().numpy(), earlier.double().numpy()
    rho = Neighbors(n_neighbors=6).fit(x).kneighbors(x)[0][:, 5]  # the first is the point itself
    nu = Neighbors(n_neighbors=5).fit(y).kneighbors(x)[0][:, 4]
    assert found[-1] == pytest.approx(2 * np.log(nu / rho).mean() + math.log(1800 / 1499), abs=1e-9)
    exact = 2 * (math.log(1.5) + (1 + 0.16) / (2 * 1.5**2) - 0.5)
    assert np.mean(found) == pytest.approx(exact, abs=4 * np.std(found) / math.sqrt(len(found)))


def test_frechet_against_the_matrix_square_root():
    samples = [made(1), made(2, family=3)]
    fitted = [Frechet().fitted(sample.features.double()) for sample in samples]
    covariances = [LedoitWolf().fit(sample.features.double().numpy()).covariance_ for sample in samples]
    means = [sample.features.double().numpy().mean(axis=0) for sample in samples]
    common = np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    plain = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * common
    assert float(Frechet().squared_distance(*fitted)) == pytest.approx(plain, rel=1e-5)  # what is kept is in float32
    assert float(Frechet().spread(fitted[0])) == pytest.approx(np.trace(covariances[0]), rel=1e-6)


def test_diagonal_frechet_by_hand():
    first = {"mean": torch.tensor([0.0, 1.0]).double(), "variance": torch.tensor([1.0, 4.0]).double(), "count": 10}
    second = {"mean": torch.tensor([3.0, 1.0]).double(), "variance": torch.tensor([9.0, 4.0]).double(), "count": 10}
    assert float(DiagonalFrechet().squared_distance(first, second)) == pytest.approx(9 + 4)


@pytest.mark.parametrize("measure", [Frechet(), DiagonalFrechet()])
@pytest.mark.parametrize("count", [60, 240])
def test_two_samples_of_one_gaussian_are_at_distance_zero_on_average(measure, count):
    """Without the correction they are not: the excess goes with 1 / n."""
    corrected, raw = [], []
    for seed in range(6):
        samples = []
        for part in range(2):
            generator = torch.Generator().manual_seed(2 * seed + part)
            features = torch.randn(count, 8, generator=generator) * torch.arange(1, 9)
            samples.append(Sample(features, torch.zeros(count, dtype=torch.int64), 1, count))
        kept = [measure.keep(sample, SETTINGS) for sample in samples]
        corrected.append(float(measure.divergences(samples[0], kept[1:], SETTINGS)))
        raw.append(float(measure.squared_distance(*kept) / (measure.spread(kept[0]) + measure.spread(kept[1]))))
    assert np.mean(raw) > 0.5 / count
    assert np.mean(corrected) < 0.5 * np.mean(raw)  # not 0: below zero it counts as 0


def test_a_kernel_mean_against_the_kernel():
    sample, earlier = made(1, each=100), made(2, family=3, each=100)
    kept = [KernelMean().keep(earlier, SETTINGS)]
    found = float(KernelMean().divergences(replace(sample, first=kept[0]), kept, SETTINGS))
    x, y = sample.features.double(), earlier.features.double()
    bandwidth = torch.pdist(y).median().item()
    assert kept[0]["bandwidth"] == pytest.approx(bandwidth)

    def kernel(a, b):
        return torch.exp(-torch.cdist(a, b).square() / (2 * bandwidth**2))

    n = len(x)
    within = [(kernel(a, a).sum() - n) / (n * (n - 1)) for a in (x, y)]
    exact = float(within[0] + within[1] - 2 * kernel(x, y).mean())
    assert 2 * found**2 == pytest.approx(exact, rel=0.1)


def test_all_tasks_are_measured_by_the_bandwidth_of_the_first():
    first = KernelMean().keep(made(1), SETTINGS)
    second = KernelMean().keep(replace(made(2, spread=5.0), first=first), SETTINGS)
    assert second["bandwidth"] == first["bandwidth"] != KernelMean().keep(made(2, spread=5.0), SETTINGS)["bandwidth"]


def test_cosine_by_hand():
    new = Sample(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]), 2, 1)
    kept = {"means": torch.tensor([[3.0, 0.0], [-1.0, 0.0]]).double(), "counts": torch.tensor([5, 5])}
    assert PrototypeCosine().divergences(new, [kept], SETTINGS).tolist() == [pytest.approx((0 + 0.5) / 2)]


def test_subspaces_that_are_the_same_and_orthogonal_ones():
    generator = torch.Generator().manual_seed(0)
    coordinates = [torch.randn(200, 10, generator=generator) for _ in range(3)]
    basis = torch.linalg.qr(torch.randn(40, 40, generator=generator)).Q
    labels = torch.arange(200) % 2
    first, again = (Sample(part @ basis[:, :10].T, labels, 2, 100) for part in coordinates[:2])
    apart = Sample(coordinates[2] @ basis[:, 10:20].T, labels, 2, 100)
    kept = [Subspace().keep(sample, SETTINGS) for sample in (first, apart)]
    assert Subspace().divergences(again, kept, SETTINGS).tolist() == pytest.approx([0, 1], abs=1e-5)


def test_mahalanobis_against_numpy():
    earlier, new = made(1), made(2, family=3)
    apart = held_out(earlier.labels).numpy()
    x, y = earlier.features.double().numpy(), earlier.labels.numpy()
    means = np.stack([x[~apart][y[~apart] == c].mean(axis=0) for c in range(4)])
    within = LedoitWolf(assume_centered=True).fit(x[~apart] - means[y[~apart]]).covariance_

    def nearest(points):
        return np.array([min((p - m) @ np.linalg.solve(within, p - m) for m in means) for p in points])

    calibration = nearest(x[apart])
    z = (nearest(new.features.double().numpy()).mean() - calibration.mean()) / calibration.std()
    (found,) = Mahalanobis().divergences(new, [Mahalanobis().keep(earlier, SETTINGS)], SETTINGS)
    assert float(found) == pytest.approx(z, rel=1e-4)
    assert float(Mahalanobis().to_distance(found)) == pytest.approx(1 - math.exp(-z / 2), abs=1e-4)


def test_a_symmetric_matrix_is_kept_as_its_triangle():
    matrix = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]]).double()
    assert len(packed(matrix)) == 6
    assert torch.equal(unpacked(packed(matrix)), matrix)


def test_halves_and_fifths_have_all_classes():
    labels = torch.tensor([0] * 11 + [1] * 4 + [2])[torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    assert labels[first_half(labels)].bincount().tolist() == [6, 2, 1]
    assert labels[held_out(labels)].bincount(minlength=3).tolist() == [2, 0, 0]


def test_expert_gates_measure_is_its_relatedness():
    new, earlier = made(3), [made(1), made(2, family=7)]
    measure = MEASURES["autoencoder"]()
    kept = [measure.keep(sample, SETTINGS) for sample in earlier]
    found = measure.divergences(new, kept, SETTINGS)
    apart = held_out(new.labels)
    gate = [trained_autoencoder(sample.features[~held_out(sample.labels)]) for sample in (*earlier, new)]
    errors = torch.stack([each.errors(new.features[apart]) for each in gate], dim=1)
    assert found.tolist() == pytest.approx((1 - gate_relatedness(errors.double())).tolist(), rel=1e-5)


def test_training_an_auto_encoder_draws_nothing_from_the_programs_generator():
    before = torch.get_rng_state()
    first, second = trained_autoencoder(made(1).features), trained_autoencoder(made(1).features)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with torch.no_grad():
        fresh = first.inputs(made(1).features)
        assert first.errors(made(1).features).mean() < 0.5 * (fresh - fresh.mean(dim=0)).square().sum(dim=1).mean()


class Counted(nn.Module):
    """An expert that counts how many images it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return images.mean(dim=(2, 3))


def test_an_expert_sees_the_images_once_and_each_head_answers_for_its_task():
    shared, other = Counted(), Counted()
    heads = [nn.Linear(3, 2), nn.Linear(3, 4), nn.Linear(3, 2)]
    modules = [(shared, heads[0]), (shared, heads[1]), (other, heads[2])]
    images = torch.randint(0, 256, (9, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    experts = EarlierExperts(modules.__getitem__, images, SCALE)
    seen = [experts.seen_by(task) for task in (0, 1, 2, 1)]
    assert (shared.seen, other.seen) == (9, 9)
    assert seen[0].features is seen[1].features
    plain = ((images / 255 - 0.5) / 0.25).mean(dim=(2, 3))
    torch.testing.assert_close(seen[2].features, plain.double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen[1].log_probabilities, heads[1](plain).log_softmax(1).double(), rtol=1e-4, atol=1e-5)
    assert not seen[1].log_probabilities.requires_grad


@pytest.mark.parametrize("name", OF_EXPERTS)
def test_an_expert_that_knows_the_classes_is_near_and_permuted_labels_are_far(name):
    patterns = torch.randint(40, 216, (3, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(90) % 3
    noise = torch.randint(-30, 30, (90, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    images = (patterns[labels] + noise).to(torch.uint8)
    expert, head = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), nn.Linear(3, 3)
    with torch.no_grad():
        centred = (patterns / 255 - 0.5).flatten(1) * 4
        expert[1].weight.copy_(centred)
        expert[1].bias.copy_(-centred.square().sum(dim=1) / 2)
        head.weight.copy_(torch.eye(3))
        head.bias.zero_()
    experts = EarlierExperts(lambda task: (expert, head), images, SCALE)

    def distance(labels):
        return measure_divergences(name, Sample(torch.zeros(90, 1), labels, 3, 30, experts=experts), [None], SETTINGS).item()

    assert distance(labels) < 0.1
    assert distance(labels[torch.randperm(90, generator=torch.Generator().manual_seed(2))]) > 0.9
    assert distance(torch.tensor([1, 2, 0])[labels]) == pytest.approx(distance(labels), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in OF_FEATURES if name != "prototype-kl"])
def test_relatedness_goes_on_from_its_state(name, tmp_path):
    settings = PARSettings(measure=name, keep_features=name == "knn-kl")
    tasks = [make_task(*task) for task in TASKS[:4]]
    straight = Relatedness(settings)
    decisions = run(straight, tasks)
    first = Relatedness(settings)
    run(first, tasks[:2])
    save_tree(tmp_path / "state.safetensors", first.state())
    again = Relatedness.from_state(settings, load_tree(tmp_path / "state.safetensors"))
    assert run(again, tasks[2:]) == decisions[2:]
    assert (straight.bytes == straight.bank.bytes) == keeps_prototypes(name)


def test_kept_features_are_counted():
    tasks = [make_task(*task) for task in TASKS[:3]]
    relatedness = Relatedness(PARSettings(measure="knn-kl", keep_features=True))
    run(relatedness, tasks)
    assert relatedness.bytes - relatedness.bank.bytes == 4 * 192 * 30 * 3


def test_features_are_kept_only_where_that_is_allowed():
    with pytest.raises(LifelongError, match="--keep-features"):
        Relatedness(PARSettings(measure="knn-kl"))
    with pytest.raises(LifelongError, match="--keep-features"):
        lifelong.distances("digits?tasks=2", measure="knn-kl", preset="quick")
    Relatedness(PARSettings(measure="knn-kl", variant="fine"))  # needs no distances


@pytest.mark.parametrize("name", OF_EXPERTS)
def test_a_measure_of_experts_is_refused_where_there_are_none(name):
    with pytest.raises(LifelongError, match=rf"'{name}' .* `lifelong distances` trains none.*lifelong run"):
        lifelong.distances("digits?tasks=2", measure=name, preset="quick")
    with pytest.raises(LifelongError, match=f"--measure {name} .* --expert cells"):
        make_par(PARSettings(measure=name, expert="head"))
    relatedness = Relatedness(PARSettings(measure=name))
    run(relatedness, [make_task(*TASKS[0])])
    with pytest.raises(LifelongError, match="without a run of PAR"):
        relatedness.assess(make_task(*TASKS[1]), EXTRACTOR)


def test_a_run_by_experts_and_one_by_another_map(tmp_path):
    small = {"preset": "quick", "epochs": 1, "search_epochs": 1, "init_channels": 2, "device": "cpu", "threads": 1}
    stream = "digits?tasks=2&train_per_class=6&valid_per_class=5&test_per_class=2"
    summary = lifelong.run(stream, measure="leep", out=tmp_path / "leep", **small)
    (divergence,) = summary.tasks[1].divergences
    assert 0 <= divergence <= 1
    assert summary.tasks[1].task_distances == summary.tasks[1].group_distances == [divergence]
    assert lifelong.Learner.load(tmp_path / "leep").predict(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    found = lifelong.distances(stream, measure="mahalanobis", preset="quick", out=tmp_path / "z")
    for decision in found.decisions:
        assert decision.distances == pytest.approx([1 - math.exp(-z / 2) for z in decision.divergences], abs=1e-12)
    assert found.measure == "mahalanobis"


@pytest.mark.parametrize("name", OF_FEATURES)
def test_features_of_another_length_are_refused_by_every_measure(name):
    relatedness = Relatedness(PARSettings(measure=name, keep_features=True))
    run(relatedness, [make_task(1)])
    large = Split(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(LifelongError, match="length 768, the tasks before it 192"):
        relatedness.assess(Task("large", ["a", "b"], lambda _: large, normalization=SCALE), EXTRACTOR)
