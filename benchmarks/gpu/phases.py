"""Part 3: what a task of PAR is made of: rounds of the cell search, epochs of distillation, and the distances to earlier tasks."""

from pathlib import Path

import torch
from torch import nn

from benchmarks.distances import CLASSES as TASK_CLASSES
from benchmarks.distances import LENGTH, made_task
from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.steps import CLASSES, NORMALIZATION, POLICY, WARM_UP, Clock, expert, made_examples, recorded
from lifelong.data.task import Split
from lifelong.methods.distillation import distillation_loss
from lifelong.networks.cells import CellNetwork
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.search.mdl import search_cell
from lifelong.settings.par import RelatednessSettings, SearchSettings
from lifelong.settings.training import Precision, TrainingSettings
from lifelong.training.fit import fit
from lifelong.training.stages import Epoch, Stage

FORMS: list[tuple[str, Precision, bool]] = [
    ("eager float32", "float32", False),
    ("graph float32", "float32", True),
    ("graph bf16", "bf16", True),
]


def measure(report: Report, scale: Scale, device: torch.device, scratch: Path, deadline: float) -> None:
    """Add rows: seconds of an epoch of each."""
    about = f"C={scale.channels}, {scale.images} images {scale.size}x{scale.size}, batch {scale.batch}"
    for name, precision, graphs in FORMS:
        with recorded(graphs):
            report.add("phases", f"search epoch, {name}", search_epoch(scale, device, precision), "s", about)
            report.add("phases", f"distillation epoch, {name}", distillation_epoch(scale, device, precision), "s", about)
    about = f"{scale.earlier} earlier tasks of {TASK_CLASSES} classes, 500 samples, {LENGTH} features"
    report.add("phases", "distances", distances(scale, device), "s", about)


def search_epoch(scale: Scale, device: torch.device, precision: Precision) -> float:
    """Seconds of a round: another network each, trained on one half of the images and judged on the other."""
    examples = made_examples(scale, device)
    rounds = scale.rounds + 1
    clock = Clock(device)

    def listener(epoch: Epoch) -> None:
        if epoch.epoch in (1, rounds):
            clock.mark()

    training = TrainingSettings(batch_size=scale.batch, precision=precision)
    search_cell(
        Split(examples.train, examples.train_labels),
        CLASSES,
        SearchSettings(search_epochs=rounds),
        training,
        Stage("search", 0, listener=listener),
        normalization=NORMALIZATION,
        augmentation=POLICY,
        channels=scale.channels,
    )
    return clock.seconds() / scale.rounds


def distillation_epoch(scale: Scale, device: torch.device, precision: Precision) -> float:
    """Seconds of an epoch in which an expert learns a task, and keeps three earlier heads by distillation."""
    examples = made_examples(scale, device)
    network, head = expert(CellNetwork, scale, device)
    heads = [nn.Linear(4 * scale.channels, CLASSES).to(device).requires_grad_(False) for _ in range(3)]
    loss = distillation_loss(network, head, heads, examples, weight=1.0, temperature=2.0)
    clock = Clock(device)

    def listener(epoch: Epoch) -> None:
        if epoch.epoch in (WARM_UP, WARM_UP + 2):
            clock.mark()

    settings = TrainingSettings(epochs=WARM_UP + 2, batch_size=scale.batch, patience=0, precision=precision)
    trained = nn.ModuleList([network, head])
    fit(trained, examples, lambda inputs: head(network(inputs)), settings, Stage("distill", 0, listener=listener), loss=loss)
    return clock.seconds() / 2


def distances(scale: Scale, device: torch.device) -> float:
    """Seconds of the distances of a task to all earlier ones, its features given; the best of three."""
    generator = torch.Generator().manual_seed(0)
    bank = PrototypeBank()
    for _ in range(scale.earlier):
        features, labels = (tensor.to(device) for tensor in made_task(generator, 500))
        bank.add(prototypes(features, labels, TASK_CLASSES))
    features, labels = (tensor.to(device) for tensor in made_task(generator, 500))
    own = prototypes(features, labels, TASK_CLASSES)
    taken = []
    for _ in range(3):
        clock = Clock(device)
        clock.mark()
        divergences(features, labels, own, bank, RelatednessSettings())
        clock.mark()
        taken.append(clock.seconds())
    return min(taken)
