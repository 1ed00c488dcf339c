"""Steps that are recorded and replayed give the bits of steps that run eagerly, for every method; what cannot be recorded is not."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lifelong.data.task import Augmentation
from lifelong.errors import LifelongError
from lifelong.methods.conformance import _Trial
from lifelong.methods.registry import METHODS, make_method
from lifelong.settings.pretrained import PretrainedSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training import step_runner
from lifelong.training.examples import image_examples
from lifelong.training.fit import fit
from lifelong.training.stages import Epoch, Stage, seeded
from lifelong.training.step_runner import KEPT, SWITCH, HostSide, StepRunner, can_record
from tests.made import made_task
from tests.methods.test_conformance import small_settings
from tests.training.op_recorder import OpRecorder, apart, recording
from tests.trees import same

pytestmark = pytest.mark.usefixtures("shallow_networks")

CPU = torch.device("cpu")

ON_THE_HOST = {"joint": 0, "er": 1, "agem": 1}
"""Methods that choose on the host which images a step replays, and how many tasks they learn before they do."""

TRAINED = sorted(name for name, entry in METHODS.items() if not issubclass(entry.settings, PretrainedSettings))
"""Methods whose networks are trained, step by step."""


def trial(name: str) -> _Trial:
    training = TrainingSettings(epochs=2, batch_size=5, lr=0.05)
    return _Trial(lambda: make_method(name, small_settings(name)), training, images=8)


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_replayed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        apart(patch)
        eager = trial(name).run()
    with recording(monkeypatch) as recorder:
        replayed = trial(name).run()
    assert same(eager, replayed)
    assert (recorder.replays > 0) == bool(ON_THE_HOST.get(name, 3))
    assert name in ON_THE_HOST or recorder.replays >= 10


def test_the_rate_of_a_plateau_reaches_recorded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy is perfect from the first epochs on, so that the rate is cut again and again."""
    settings = TrainingSettings(epochs=14, batch_size=8, lr=0.05, schedule="plateau", patience=1, plateau_factor=0.3, momentum=0.0)
    with monkeypatch.context() as patch:
        apart(patch)
        eager = fitted(settings)
    with recording(monkeypatch) as recorder:
        replayed = fitted(settings)
    assert len({rate for rate, _, _ in eager[1]}) > 2
    assert same(eager, replayed)
    assert recorder.recordings == 2  # The full batch, and the last one of an epoch.


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_an_interrupted_fit_draws_the_same_numbers_again(stop: int, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Augmentation and dropout, which comes from torch's global generator."""
    settings = TrainingSettings(epochs=6, batch_size=8, lr=0.05)

    def interrupt(epoch: Epoch) -> None:
        if epoch.epoch == stop:
            raise KeyboardInterrupt

    with recording(monkeypatch):
        straight = fitted(settings)
        with pytest.raises(KeyboardInterrupt):
            fitted(settings, Stage("train", 5, folder=tmp_path, save_every=0.0, listener=interrupt))
        resumed = fitted(settings, Stage("train", 5, folder=tmp_path, save_every=0.0))
    assert same(straight, resumed)


def fitted(settings: TrainingSettings, stage: Stage | None = None) -> tuple:
    """The weights and the history of a small network after its training."""
    with seeded(0):
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    task = made_task(augmentation=Augmentation(crop=1, flip=True), train=9)
    outcome = fit(network, image_examples(task), network, settings, stage or Stage("train", 5))
    return network.state_dict(), outcome.history


class Counter:
    """A step that adds its input, and remembers how often Python ran it."""

    def __init__(self) -> None:
        self.total, self.runs = torch.zeros(()), 0

    def __call__(self, numbers: torch.Tensor) -> None:
        self.runs += 1
        self.total += numbers.sum()


def run(runner: StepRunner, step, count: int, size: int = 3, key: str = "step") -> None:
    for number in range(count):
        runner.run(key, step, torch.full((size,), float(number)))


def test_a_step_is_observed_once_recorded_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(monkeypatch) as recorder:
        counter, runner = Counter(), StepRunner(CPU)
        run(runner, counter, 10)
    assert counter.total == 3 * sum(range(10))
    assert (counter.runs, recorder.observed, recorder.recordings, recorder.replays) == (2, [True], 1, 8)


def test_another_shape_is_another_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(monkeypatch) as recorder:
        counter, runner = Counter(), StepRunner(CPU)
        for _ in range(4):
            run(runner, counter, 2)
            run(runner, counter, 1, size=2)
    assert counter.total == 4 * 3
    assert recorder.recordings == 2


def test_the_recording_used_least_recently_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(monkeypatch):
        counter, runner = Counter(), StepRunner(CPU)
        for network in range(3 * KEPT):
            run(runner, counter, 3, key=f"path {network}")
            assert runner.recorded <= KEPT
    assert counter.total == 3 * KEPT * 9


def test_one_network_is_observed_for_all_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(monkeypatch) as recorder:
        counter, runner = Counter(), StepRunner(CPU)
        for network in range(3):
            for number in range(3):
                runner.run(f"path {network}", counter, torch.full((3,), float(number)), kind="train")
    assert counter.total == 3 * 9
    assert (recorder.observed, recorder.recordings) == ([True], 3)


def test_a_kind_that_waits_is_not_recorded_on_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter()

    def step(numbers: torch.Tensor) -> None:
        counter(numbers)
        counter.total.item()

    with recording(monkeypatch) as recorder:
        runner = StepRunner(CPU)
        for network in range(3):
            for _ in range(3):
                runner.run(f"path {network}", step, torch.ones(3), kind="train")
    assert recorder.recordings == 0


@pytest.mark.parametrize("why", ["looks at a value", "draws on the host", "asks for the host's generator", "asks for the host's indices"])
def test_a_step_that_depends_on_the_host_is_never_recorded(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, counter = HostSide(torch.Generator()), Counter()
    what = {
        "looks at a value": lambda: counter.total.item(),
        "draws on the host": lambda: torch.rand(1),
        "asks for the host's generator": lambda: host.generator,
        "asks for the host's indices": lambda: host.indices,
    }

    def step(numbers: torch.Tensor) -> None:
        counter(numbers)
        what[why]()

    with recording(monkeypatch) as recorder:
        run(StepRunner(CPU, host=host), step, 6)
    assert recorder.recordings == 0
    assert counter.runs == 6


def test_a_first_step_that_fills_a_cache_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, counter = [], Counter()

    def step(numbers: torch.Tensor) -> None:
        if not cache:
            cache.append(counter.total.item())
        counter(numbers)

    with recording(monkeypatch) as recorder:
        run(StepRunner(CPU), step, 6)
    assert (recorder.observed, recorder.recordings) == ([False, True], 1)


def test_the_stand_in_finds_a_step_that_is_not_fit_to_be_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that Python counts stays what it was when the step was recorded: the tests above could not miss that."""
    seen = [0]

    def step(numbers: torch.Tensor) -> None:
        seen[0] += 1
        total.add_(numbers.sum() * seen[0])

    total = torch.zeros(())
    with recording(monkeypatch):
        run(StepRunner(CPU), step, 5)
    assert total != sum(3 * number * (number + 1) for number in range(5))


def test_recording_is_for_cuda_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert can_record(cuda)
    assert not can_record(CPU)
    assert step_runner.recorder_for(CPU) is None
    monkeypatch.setenv(SWITCH, "0")
    assert not can_record(cuda)


class FakeCuda:
    """As much of torch.cuda as recording needs; writes down what is called."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.mode = 0
        fake = self

        class Stream:
            def __init__(self, device: torch.device) -> None:
                self.device = device

            def wait_stream(self, other: object) -> None:
                fake.calls.append("wait")

        class Graph:
            fails = False

            def register_generator_state(self, generator: torch.Generator) -> None:
                fake.calls.append("register")

            def capture_begin(self, pool: object, capture_error_mode: str) -> None:
                fake.calls.append(f"begin {pool} {capture_error_mode}")

            def capture_end(self) -> None:
                fake.calls.append("end")
                if Graph.fails:
                    raise RuntimeError("invalidated")

            def pool(self) -> str:
                return "pool"

            def replay(self) -> None:
                fake.calls.append("replay")

        self.graph = Graph
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "CUDAGraph", Graph)
        patch.setattr(torch.cuda, "current_stream", lambda device: Stream(device))
        patch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        patch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.mode)
        patch.setattr(torch.cuda, "set_sync_debug_mode", self.set_mode)

    def set_mode(self, mode: int | str) -> None:
        self.mode = mode
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)


def test_cuda_steps_are_recorded_on_a_stream_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, counter = FakeCuda(monkeypatch), Counter()
    graphs = step_runner.CudaGraphs(torch.device("cuda:1"))
    assert graphs.observe(lambda: counter(torch.ones(2)))
    assert (counter.runs, cuda.mode, cuda.calls) == (1, 0, ["wait", "wait"])
    first = graphs.record(lambda: counter(torch.ones(2)), [torch.Generator()], None)
    graphs.record(lambda: counter(torch.ones(2)), [], first)
    assert cuda.calls[2:] == [
        "register",
        "wait",
        "begin None relaxed",
        "end",
        "wait",
        "wait",
        "begin pool relaxed",
        "end",
        "wait",
    ]


def test_a_step_that_waits_is_heard_and_other_warnings_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    graphs = step_runner.CudaGraphs(torch.device("cuda"))

    def step(text: str) -> None:
        assert cuda.mode == "warn"
        warnings.warn(text, stacklevel=1)

    assert not graphs.observe(lambda: step("called a synchronizing CUDA operation (Triggered internally)"))
    with pytest.warns(UserWarning, match="something else"):
        assert graphs.observe(lambda: step("something else"))


def test_what_cuda_cannot_record_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    cuda.graph.fails = True
    with pytest.raises(LifelongError, match=r"invalidated.*LIFELONG_CUDA_GRAPHS=0"):
        step_runner.CudaGraphs(torch.device("cuda")).record(lambda: None, [], None)


def test_the_stand_in_is_a_recorder() -> None:
    assert isinstance(OpRecorder(), step_runner.Recorder)
