"""Named streams with fewer images."""

import pytest

from lifelong.errors import LifelongError
from lifelong.experiment.run import resolve_extractor
from lifelong.settings.par import PARSettings
from lifelong.settings.presets import preset_values
from lifelong.settings.training import TrainingSettings
from lifelong.streams.named_streams import open_stream, stream_names
from tests.streams.full_sources import FullSources

FEWER = "train_per_class=20&valid_per_class=7&test_per_class=9"


@pytest.mark.parametrize("name", sorted(set(stream_names()) - {"digits"}))
def test_classes_stay_and_images_get_fewer(name, tmp_path):
    sources = FullSources(cache=tmp_path)
    whole, fewer = (open_stream(text, 1, sources) for text in (name, f"{name}?{FEWER}"))
    assert fewer.name == f"{name}?{FEWER}"
    for before, after in zip(whole.describe(), fewer.describe(), strict=True):
        assert (after.name, after.classes, after.transform, after.source) == (before.name, before.classes, before.transform, before.source)
        many = len(after.classes)
        assert after.train <= min(before.train, 20 * many)
        assert after.valid <= 7 * many
        assert after.test <= 9 * many
        assert after.train == 20 * many or before.train < 20 * many
    assert open_stream(f"{name}?{FEWER}", 1, sources).fingerprint() == fewer.fingerprint() != whole.fingerprint()


def test_one_split_alone(tmp_path):
    described = open_stream("cifar100-10?train_per_class=90", 0, FullSources(cache=tmp_path)).describe()
    assert [(one.train, one.valid, one.test) for one in described] == [(900, 100, 1000)] * 10  # still a tenth for validation


@pytest.mark.parametrize("name", ["cifar100-10", "ctrl-s-minus", f"cifar100-20?{FEWER}"])
def test_the_first_tasks_alone(name, tmp_path):
    sources = FullSources(cache=tmp_path)
    whole, first = (open_stream(text, 2, sources).describe() for text in (name, f"{name}{'&' if '?' in name else '?'}tasks=3"))
    assert [(task.name, task.classes, task.train) for task in first] == [(task.name, task.classes, task.train) for task in whole[:3]]


@pytest.mark.parametrize("fewer", ["", "&train_per_class=20"])
def test_without_a_source(fewer, tmp_path):
    """The tasks of other sources stay as they are, in their order; a source that the stream does not use changes nothing."""
    sources = FullSources(cache=tmp_path)
    whole, left = (open_stream(f"ctrl-s-minus?{text}{fewer}", 1, sources) for text in ("without=mini_imagenet", "without=dtd+svhn"))
    kept = [task for task in whole.describe() if task.source not in ("dtd", "svhn")]
    assert [task.source for task in kept] == ["cifar10", "mnist", "fashion_mnist", "cifar10"]
    assert [(task.name, task.classes, task.train) for task in left.describe()] == [(task.name, task.classes, task.train) for task in kept]
    assert left.describe()[-1].classes == left.describe()[0].classes


def test_settings_follow_the_stream():
    name = f"ctrl-s-in?{FEWER}"
    assert preset_values("paper", name, TrainingSettings) == preset_values("paper", "ctrl-s-in", TrainingSettings) != {}
    settings, _ = resolve_extractor(PARSettings(), f"digits?{FEWER}")
    assert settings.extractor == "pixels"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cifar100-10?train=5", "option 'train': unknown"),
        ("cifar100-10?train_per_class=0", "'0': expected an integer >= 1"),
        ("cifar100-10?train_per_class=", "'': expected an integer >= 1"),
        ("cifar100-10?train_per_class=5&train_per_class=6", "is given twice"),
        ("cifar100-10?tasks=11", "it has 10 tasks, not 11"),
        ("ctrl-s-minus?without=svhn+dtd&tasks=5", "it has 4 tasks, not 5"),
        ("ctrl-s-minus?without=shvn", "unknown source 'shvn'; did you mean 'svhn'?"),
        ("cifar100-10?without=cifar100", "no task is left"),
        ("cifar100-1?train_per_class=5", "unknown stream 'cifar100-1'; did you mean 'cifar100-10'?"),
    ],
)
def test_wrong_options(name, line, tmp_path):
    with pytest.raises(LifelongError) as caught:
        open_stream(name, 0, FullSources(cache=tmp_path))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_made_smaller(tmp_path):
    """Options after the path of a file, as after a name."""
    tasks = "".join(f'[[task]]\nname = "{name}"\nsource = "{name}"\ntrain_per_class = 40\n' for name in ("mnist", "cifar10", "svhn"))
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n{tasks}')
    sources = FullSources(cache=tmp_path)
    whole, first = (open_stream(f"{path}{options}", 0, sources) for options in ("", "?tasks=2&train_per_class=30"))
    assert first.name == "mine?tasks=2&train_per_class=30"
    assert [task.classes for task in first.describe()] == [task.classes for task in whole.describe()[:2]]
    assert [task.train for task in first.describe()] == [300, 300]
