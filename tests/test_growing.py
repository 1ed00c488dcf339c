"""A learner that grows from nothing and is saved. Held against runs of the same tasks, and scikit-learn itself."""

import gc
import json
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lifelong
from lifelong import Learner, Task
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.saved import open_run
from lifelong.records.task import TaskRecord
from tests.experiment.test_objects import NAMES, QUICK, images_of, learn, method_of, tasks
from tests.trees import same

SETTINGS: dict[str, Any] = {key: value for key, value in QUICK.items() if key != "progress"}


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    learner = Learner("finetune", **SETTINGS)
    records = [learner.learn(task) for task in tasks()]
    assert [record.name for record in records] == list(NAMES)
    assert all(isinstance(record, TaskRecord) and record.train == 24 for record in records)
    return learner.save(tmp_path_factory.mktemp("grown") / "run")


def test_it_learns_what_a_run_of_the_same_tasks_learns(grown, tmp_path):
    learn(tasks(), tmp_path / "run")
    assert same(method_of(grown), method_of(tmp_path / "run"))
    assert open_run(grown).state["accuracy"] == open_run(tmp_path / "run").state["accuracy"]


def test_nothing_is_known_before_the_first_task():
    learner = Learner("finetune", **SETTINGS)
    assert learner.tasks == learner.image_sizes == {}
    assert not hasattr(learner, "classes_")
    for ask in (
        lambda: learner.predict(np.zeros((1, 8, 8, 3))),
        lambda: learner.save("x"),
        lambda: learner.summary,
        lambda: learner.image_size,
    ):
        with pytest.raises(LifelongError, match=r"nothing has been learned yet; call learner.learn\(task\) first"):
            ask()
    with pytest.raises(LifelongError, match="the first task is an object"):
        learner.learn("folder:photos")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"method": "parr"}, "unknown method 'parr'; did you mean 'par'"),
        ({"epoch": 3}, "epoch"),
        ({"epochs": -1}, "epochs"),
        ({"seed": -1}, "seed.* -1"),
        ({"device": "gpu9"}, "gpu9"),
        ({"preset": "fast"}, "preset"),
    ],
)
def test_a_wrong_argument_is_found_at_once(arguments, line):
    with pytest.raises(LifelongError, match=line):
        Learner(**arguments)
    with pytest.raises(LifelongError, match=line):
        Learner("finetune").set_params(**arguments)


def test_what_is_saved_is_a_run_for_every_command(grown, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(images_of(0)[0][0]).save(tmp_path / "a.png")
    assert main(["predict", str(grown), str(tmp_path / "a.png"), "--task", "birds", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] in "ab"
    assert main(["verify", str(grown)]) == 0
    for number, label in enumerate(images_of(6)[1]):
        (tmp_path / "bees" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images_of(6)[0][number]).save(tmp_path / "bees" / label / f"{number}.png")
    copy = Learner.load(grown, threads=1).save(tmp_path / "copy")
    assert main(["learn", str(copy), "--task", f"folder:{tmp_path / 'bees'}", "--device", "cpu", "--threads", "1"]) == 0
    assert list(Learner.load(copy, threads=1).tasks) == [*NAMES, "bees"]


def test_a_run_that_was_opened_is_only_written_to_when_it_is_saved(grown, tmp_path):
    run = Learner.load(grown, threads=1).save(tmp_path / "run")
    learner, other = Learner.load(run, threads=1), Learner.load(run, threads=1)
    before = {file: file.read_bytes() for file in run.rglob("*.safetensors")}
    late = Learner.load(run, threads=1)
    other.learn(Task.from_arrays(*images_of(3), name="wasps"))
    record = learner.learn(Task.from_arrays(*images_of(2)))
    assert record.name == "task 3"
    assert {file: file.read_bytes() for file in run.rglob("*.safetensors")} == before
    assert list(late.tasks) == list(NAMES)
    assert learner.save(run) == run
    assert list(Learner.load(run, threads=1).tasks) == [*NAMES, "task 3"]
    # Another state than an earlier one of this learner's own is not lost.
    with pytest.raises(LifelongError, match="has changed since it was opened; open it again"):
        late.learn(Task.from_arrays(*images_of(3), name="wasps"))
    with pytest.raises(LifelongError, match=r"holds another run, of birds, boats, task 3; choose another folder"):
        other.save(run)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(LifelongError, match="is not empty, and holds no run that could be replaced"):
        other.save(tmp_path / "full")
    (tmp_path / "empty").mkdir()
    assert list(Learner.load(other.save(tmp_path / "empty"), threads=1).tasks) == [*NAMES, "wasps"]
    assert not [place for place in tmp_path.iterdir() if place.name.startswith(".")]


def test_a_task_that_cannot_be_learned_leaves_the_learner_as_it_was(grown):
    learner = Learner.load(grown, threads=1)
    images, _ = images_of(0)
    wanted = learner.predict(images[:2], "birds")
    with pytest.raises(LifelongError, match="has learned a task 'birds' before, from other images"):
        learner.learn(Task.from_arrays(*images_of(5), name="birds"))
    assert learner.predict(images[:2], "birds") == wanted
    assert list(learner.tasks) == list(NAMES)


class Stopping(lifelong.Observer):
    """Interrupts the learning of a task."""

    def epoch(self, event: Any) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_task_is_learned_by_the_same_call(grown):
    learner = Learner("finetune", save_every=0.0, **SETTINGS)
    for number, task in enumerate(tasks()):
        with pytest.raises(KeyboardInterrupt):
            learner.learn(task, progress=Stopping())
        assert len(learner.tasks) == number
        learner.learn(task)
    assert same(learner._known()._saved.state["method"], method_of(grown))
    # The first one may also be another.
    other = Learner("finetune", save_every=0.0, **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        other.learn(tasks()[1], progress=Stopping())
    assert other.learn(tasks()[0]).name == "birds"


def test_others_predict_while_one_learns(grown):
    learner = Learner.load(grown, threads=1)
    images, _ = images_of(0)
    wanted = learner.predict(images[:4], "birds")
    found: list[Any] = []

    class Asking(lifelong.Observer):
        def epoch(self, event: Any) -> None:
            thread = threading.Thread(target=lambda: found.append(learner.predict(images[:4], "birds")))
            thread.start()
            thread.join()

    learner.learn(Task.from_arrays(*images_of(2)), progress=Asking())
    assert found
    assert all(answers == wanted for answers in found)


def test_its_folder_goes_with_it():
    learner = Learner("finetune", **SETTINGS)
    home = learner._made_home()
    assert home.is_dir()
    del learner
    gc.collect()
    assert not home.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_learns_in_a_folder_of_its_own_and_deletes_nothing(tmp_path):
    learner = Learner("finetune", **SETTINGS)
    learner.learn(tasks()[0])
    theirs = learner._working_copy()
    child = os.fork()
    if not child:
        code = 1
        try:
            # Not learned: PyTorch does not differentiate in a forked process once its parent has.
            copy = learner._working_copy()
            code = 0 if copy != theirs and list(open_run(copy).names) == list(NAMES[:1]) else 2
            del learner
            gc.collect()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    learner.learn(tasks()[1])
    assert list(learner.tasks) == list(NAMES[:2])
    assert list(Learner.load(learner.save(tmp_path / "run"), device="cpu").tasks) == list(NAMES[:2])


def test_a_run_that_was_opened_by_a_relative_path_is_found_from_elsewhere(grown, tmp_path, monkeypatch):
    monkeypatch.chdir(grown.parent)
    learner = Learner.load(grown.name, device="cpu", weights="no.safetensors")
    monkeypatch.chdir(tmp_path)
    learner.save("copy")
    assert same(method_of(tmp_path / "copy"), method_of(grown))
    gone = Learner.load("copy", device="cpu")
    shutil.rmtree("copy")
    with pytest.raises(LifelongError, match="copy is no longer there; put it back"):
        gone.save("other")


def test_images_of_any_kind_are_predicted_one_by_one(grown):
    learner = Learner.load(grown, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    found = list(learner.predict_each(images))
    assert [answer for _, answer in found] == learner.predict(images)
    with pytest.raises(LifelongError, match="not an image"):
        learner.predict_each(3)
    with pytest.raises(LifelongError, match="infer"):
        learner.predict_each(images, infer="nonsense")


def test_parameters_are_kept_as_given_and_changed_together():
    learner = Learner("finetune", 3, **SETTINGS)
    assert learner.get_params() == {"method": "finetune", "seed": 3, "environment": None, **SETTINGS}
    assert learner.set_params(epochs=5, method="ewc", penalty_weight=2.0) is learner
    assert learner.get_params()["epochs"] == 5
    with pytest.raises(LifelongError, match="penalty-weight is a setting of ewc"):
        learner.set_params(method="finetune")
    assert learner.get_params()["method"] == "ewc"
    assert repr(Learner("par", epochs=3)) == "Learner(method='par', seed=0, epochs=3)"


def test_fit_begins_anew_and_partial_fit_goes_on():
    (images, labels), (others, _) = images_of(0), images_of(1)
    learner = Learner("finetune", **SETTINGS)
    assert learner.fit(images, labels) is learner
    assert learner.partial_fit(others, np.arange(len(others)) % 2, classes=["odd", "even"], name="numbers") is learner
    assert learner.tasks == {"task 1": ("a", "b"), "numbers": ("odd", "even")}
    assert learner.classes_.tolist() == ["a", "b", "odd", "even"]
    assert learner.fit(others, labels, name="anew").tasks == {"anew": ("a", "b")}
    # The share of right answers, counted by hand.
    answers = learner.predict(others, "anew")
    assert learner.score(others, labels) == np.mean([answer.label == label for answer, label in zip(answers, labels, strict=True)])
    with pytest.raises(LifelongError, match="32 images and 31 labels"):
        learner.score(others, labels[1:])


def test_it_is_pickled_before_it_has_learned_and_saved_after(grown):
    learner = Learner("finetune", 1, **SETTINGS)
    assert pickle.loads(pickle.dumps(learner)).get_params() == learner.get_params()
    with pytest.raises(LifelongError, match=r"write it with learner.save\(path\)"):
        pickle.dumps(Learner.load(grown))


def test_scikit_learn_clones_and_validates_it(grown):
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import cross_val_score
    from sklearn.utils.validation import check_is_fitted

    images, labels = images_of(0)
    learner = Learner("finetune", environment=lifelong.Environment(device="cpu"), **SETTINGS)
    copy = base.clone(learner)
    assert copy is not learner
    assert copy.get_params() == learner.get_params()
    assert base.is_classifier(learner)
    with pytest.raises(NotFittedError):
        check_is_fitted(learner)
    loaded = Learner.load(grown, threads=1)
    check_is_fitted(loaded)
    fresh = base.clone(loaded)
    assert fresh.tasks == {}
    assert fresh._config.training == loaded._config.training
    assert fresh._config.settings == loaded._config.settings
    scores = cross_val_score(learner, images, np.array(labels), cv=2)
    halves = [np.r_[0:8, 16:24], np.r_[8:16, 24:32]]
    by_hand = [
        copy.fit(images[other], np.array(labels)[other]).score(images[one], np.array(labels)[one]) for one, other in (halves, halves[::-1])
    ]
    assert scores.tolist() == by_hand


@pytest.mark.parametrize(
    "name", ["check_estimator_cloneable", "check_estimator_repr", "check_get_params_invariance", "check_valid_tag_types"]
)
def test_checks_of_scikit_learn(name):
    """Those that ask no array of two dimensions of it; nor `check_set_params`, which sets what is not valid."""
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="scikit-learn is not installed")
    getattr(checks, name)("Learner", Learner("finetune", **SETTINGS))


def test_what_other_classifiers_have_and_this_does_not_is_said_in_one_line(grown):
    learner = Learner.load(grown, threads=1)
    for name, instead in {
        "predict_proba": r"predict\(images\) returns",
        "decision_function": r"logits\(",
        "n_features_in_": "any size",
    }.items():
        assert not hasattr(learner, name)
        with pytest.raises(AttributeError, match=f"'Learner' object has no attribute '{name}': .*{instead}"):
            getattr(learner, name)
    with pytest.raises(AttributeError, match=r"'Learner' object has no attribute 'predicted'$"):
        _ = learner.predicted
    with pytest.raises(AttributeError, match="'classes_': nothing has been learned yet"):
        _ = Learner("finetune", **SETTINGS).classes_
    images, labels = images_of(0)
    with pytest.raises(TypeError, match=r"^Learner.fit: got an unexpected keyword argument 'sample_weight'$"):
        learner.fit(images, labels, sample_weight=labels)


def test_device_and_size_are_those_of_what_was_learned(grown):
    learner = Learner.load(grown, threads=1)
    assert learner.device == torch.device("cpu")
    assert learner.image_size == 8
    assert learner.summary.method == "finetune"
