"""Predicting with a learned run, the task inferred image by image: one image as soon as it comes, and a thousand at once.

Ours is `Learner.predict`: one pass of the frozen extractor for all tasks, the tasks and the strangeness from the same distances, small
batches whose memory is used again. The plain way is what a person would write first for the same numbers: for each task the images
with its normalization through the extractor, in batches of 256; distances to its prototypes; the images of each task through its expert
(`plain_cells.py`); everything in contiguous layout, the dictionaries filled image by image.

Both answer from the same run of PAR, learned here in seconds: five tasks of the embedded digits, experts of the fixed cell, an extractor
with random weights of the shape of ResNet-18 up to layer3. How good it is does not matter for its time. Each side is a process of its
own, since how memory is kept is a property of the process; they take turns, with one thread, and processor time counts (see
expert_training.py). Parity is the largest difference of a probability.

    python -m benchmarks.prediction [--quick]
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.plain_cells import PlainCellNetwork
from lifelong.data.sources import Sources
from lifelong.experiment.run import run
from lifelong.experiment.saved import open_run
from lifelong.learner import Learner
from lifelong.methods.par import PAR
from lifelong.networks.genotype import genotype
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.training.stages import seeded

Answer = tuple[dict[str, float], dict[str, float]]
"""The probabilities of the tasks of an image, and those of the classes of the most likely task."""

CLASSES = ("01234", "56789", "02468", "13579", "01567")
IMAGES = "train_per_class = 2\nvalid_per_class = 4\ntest_per_class = 1"

TURN = 10
"""Single images that a side answers in one turn."""

WARM, COMPARED = 5, 20
"""Images answered before the clock runs, and images whose answers are compared."""

TOLERANCE = 1e-5


def learn(folder: Path, channels: int, size: int) -> tuple[Path, Path]:
    """Make a run with five tasks in a folder, and the weights of its extractor."""
    tasks = [f"[[task]]\nname = '{index}'\nsource = 'digits'\nclasses = {list(names)}\n{IMAGES}" for index, names in enumerate(CLASSES)]
    stream = folder / "stream.toml"
    stream.write_text("\n".join([f"name = 'five'\nimage_size = {size}\naugment = false", *tasks]))
    weights = folder / "extractor.safetensors"
    with seeded(0):
        save_file(ImageNetResNet18(last="layer3").state_dict(), weights)
    # With alpha = 0 no task shares another's expert.
    settings = PARSettings(variant="fixed+regularization", init_channels=channels, alpha=0.0, extractor="resnet18")
    config = RunConfig(stream=str(stream), method="par", seed=0, preset="paper", training=TrainingSettings(epochs=1), settings=settings)
    run(config, folder / "run", Environment(weights=weights, device="cpu", threads=1))
    return folder / "run", weights


def ours(place: Path, weights: Path) -> Callable[[Tensor], list[Answer]]:
    """Make a predictor that uses the library."""
    learner = Learner.load(place, weights=weights, device="cpu", threads=1)
    return lambda images: [(found.tasks or {}, found.classes) for found in learner.predict(images)]


def plain(place: Path, weights: Path) -> Callable[[Tensor], list[Answer]]:
    """Make a predictor in plain PyTorch, from what the run stores."""
    saved = open_run(place)
    method, tasks = saved.method, saved.entries
    assert isinstance(method, PAR)
    extractor = ImageNetResNet18(last="layer3").eval()
    extractor.load_state_dict(load_file(weights))
    experts = []
    for index in range(len(tasks)):
        expert = PlainCellNetwork(genotype(method.plans[0]), method.settings.init_channels)
        # The same weights in the same order, under other names.
        weights_of = method.modules(index)[0].state_dict().values()
        expert.load_state_dict(dict(zip(expert.state_dict(), weights_of, strict=True)))
        experts.append(expert.eval())
    bank, spreads = method.relatedness.bank, method.relatedness.recognition.spreads
    dimensions = statistics.median_low([spread.dimensions for spread in spreads])

    def prepared(images: Tensor, task: int) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spreads[task].normalization.mean, spreads[task].normalization.std))
        return (images.float() / 255 - mean) / std

    @torch.no_grad()
    def answer(images: Tensor) -> list[Answer]:
        answers: list[Answer] = []
        for part in images.split(256):
            scores = []
            for task, spread in enumerate(spreads):
                squares = torch.cdist(extractor(prepared(part, task)).double(), bank[task].means).amin(dim=1).square()
                scores.append(-dimensions / 2 * (squares / spread.mean + torch.tensor(spread.mean).log()))
            shares = torch.stack(scores, dim=1).softmax(dim=1)
            owners = shares.argmax(dim=1)
            classes: dict[int, Tensor] = {}
            for owner in owners.unique().tolist():
                rows = (owners == owner).nonzero().flatten()
                logits = method.modules(owner)[1](experts[owner](prepared(part[rows], owner)))
                classes |= dict(zip(rows.tolist(), logits.softmax(dim=1), strict=True))
            for row, owner in enumerate(owners.tolist()):
                likely = {str(task): shares[row, task].item() for task in shares[row].argsort(descending=True).tolist()}
                names = tasks[owner]["classes"]
                order = classes[row].argsort(descending=True).tolist()
                answers.append((likely, {names[position]: classes[row][position].item() for position in order}))
        return answers

    return answer


def side(connection: Connection, make: Callable[..., Callable[[Tensor], list[Answer]]], place: Path, weights: Path, size: int) -> None:
    """One process: answers what it is asked for until that is nothing; sends the answers, and the processor seconds of each question."""
    torch.set_num_threads(1)
    answer = make(place, weights)
    digits = Sources().open("digits").images("train", torch.arange(1000), size)
    connection.send("ready")
    while questions := connection.recv():
        answers, clock = [], [time.process_time()]
        for first, count in questions:
            answers += answer(digits[first : first + count])
            clock.append(time.process_time())
        connection.send((answers, [after - before for before, after in pairwise(clock)]))


def difference(some: list[Answer], others: list[Answer]) -> float:
    """Return the largest difference of a probability.

    Raises:
        AssertionError: an image is taken for another task.
    """
    largest = 0.0
    for one, other in zip(some, others, strict=True):
        if one[1].keys() != other[1].keys() or next(iter(one[0])) != next(iter(other[0])):
            raise AssertionError(f"an image is taken for another task: {one[0]} and {other[0]}")
        largest = max([largest, *(abs(mine[name] - its[name]) for mine, its in zip(one, other, strict=True) for name in mine)])
    return largest


def main(quick: bool = False) -> dict[str, object]:
    """Time both, turn by turn.

    Args:
        quick: a small network, small images and few of them.
    """
    channels, size, turns, many, repeats = (8, 16, 1, 30, 1) if quick else (64, 32, 6, 1000, 3)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        place, weights = learn(Path(folder), channels, size)
        sides = []
        for make in (ours, plain):
            here, there = context.Pipe()
            process = context.Process(target=side, args=(there, make, place, weights, size), daemon=True)
            process.start()
            there.close()
            here.recv()
            sides.append((here, process))

        def ask(questions: list[tuple[int, int]]) -> list[tuple[list[Answer], list[float]]]:
            found = []
            for connection, _ in sides:
                connection.send(questions)
                found.append(connection.recv())
            return found

        ask([(index, 1) for index in range(WARM)])
        mine, its = (answers for answers, _ in ask([(index, 1) for index in range(COMPARED)]))
        largest = difference(mine, its)
        if largest > TOLERANCE:
            raise AssertionError(f"the probabilities of the two ways differ by {largest:.2g}")
        singles: list[list[float]] = [[], []]
        for turn in range(turns):
            for times, (_, seconds) in zip(singles, ask([(TURN * turn + index, 1) for index in range(TURN)]), strict=True):
                times.extend(seconds)
        rates: list[list[float]] = [[], []]
        for _ in range(repeats):
            for found, (_, seconds) in zip(rates, ask([(0, many)]), strict=True):
                found.append(many / seconds[0])
        for connection, process in sides:
            connection.send(None)
            process.join()
    (mine_p50, mine_p95), (its_p50, its_p95) = ((statistics.median(times), _p95(times)) for times in singles)
    rate, plain_rate = map(statistics.median, rates)
    return {
        "name": "prediction",
        "ratio": its_p50 / mine_p50,
        "ours_s": mine_p50,
        "plain_s": its_p50,
        "parity": largest,
        "threads": 1,
        "detail": f"one image of {size}x{size}, task inferred among {len(CLASSES)}, PAR with C={channels}; processor s, p50 of "
        f"{len(singles[0])} (p95: {1000 * mine_p95:.1f} against {1000 * its_p95:.1f} ms); {many} images: {rate:.0f} against "
        f"{plain_rate:.0f} a processor second",
    }


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


if __name__ == "__main__":
    print(main(quick="--quick" in sys.argv))
