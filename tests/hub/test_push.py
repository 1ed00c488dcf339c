"""Runs on the Hub, through a made one: pushed, loaded, checked; and what is never uploaded."""

import getpass
import json
import platform
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lifelong
from lifelong.api import configured
from lifelong.cli import main
from lifelong.data.task import Split
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import learn_more
from lifelong.experiment.hub_runs import HubRun, hub_run
from lifelong.experiment.published import _images, public_stream, scrubbed
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import run as run_experiment
from tests.hub.hub import FakeHub
from tests.learned import HERE, small_run
from tests.photographs import picture


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub(tmp_path / "hub")
    made.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture(scope="module")
def par(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a fourth task, which was added from a folder with a telling path."""
    place = tmp_path_factory.mktemp("secret-project")
    run = small_run(place)
    for number in range(12):
        for which, label in enumerate("xy"):
            (place / "drawn" / label).mkdir(parents=True, exist_ok=True)
            # The same picture twice is a remark that names the files.
            picture(2 * (number % 11) + which, 1).save(place / "drawn" / label / f"patient-{number}.png")
    learn_more(run, f"folder:{place / 'drawn'}", HERE)  # without a report: drawing takes longer than learning
    return run


@pytest.fixture
def pushed(hub: FakeHub, par: Path) -> FakeHub:
    lifelong.push(par, "hub:me/birds")
    return hub


IMAGES = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_what_is_loaded_answers_as_what_was_pushed(pushed: FakeHub, par: Path) -> None:
    mine, theirs = lifelong.Learner.load(par, threads=1), lifelong.Learner.load("hub:me/birds", download=True, threads=1)
    assert theirs.tasks == mine.tasks
    assert theirs.predict(IMAGES) == mine.predict(IMAGES)
    for task in mine.tasks:
        assert torch.equal(theirs.logits(IMAGES, task), mine.logits(IMAGES, task))


def test_nothing_is_downloaded_unasked(pushed: FakeHub) -> None:
    pushed.asked.clear()
    with pytest.raises(LifelongError, match=r"^hub:me/birds is not in the cache of the Hub; allow the download with --download"):
        lifelong.Learner.load("hub:me/birds")
    assert pushed.asked == []
    lifelong.Learner.load("hub:me/birds", download=True)
    assert pushed.asked == ["info me/birds", "download me/birds"]
    lifelong.Learner.load("hub:me/birds")
    assert len(pushed.asked) == 2, "from the cache"


def test_only_what_is_needed_is_uploaded(pushed: FakeHub, par: Path) -> None:
    there = set(pushed.files("me/birds"))
    kept = {name for name in there if name.startswith("checkpoint/")}
    assert there - kept == {"README.md", "lifelong.json", "config.toml", "summary.json", "results.jsonl"}
    assert {"checkpoint/identity.json", "checkpoint/run.safetensors", "checkpoint/added.json"} <= kept
    assert not any(name in path for path in kept for name in ("stages", "previous", ".lock", ".part"))
    listed = json.loads(pushed.files("me/birds")["lifelong.json"].read_text())["files"]
    assert set(listed) == there - {"lifelong.json"}


def test_nothing_of_the_machine_or_the_images_is_in_it(pushed: FakeHub, par: Path) -> None:
    own = {str(par), str(par.parent), par.parent.name, "secret-project", "patient-", str(Path.home()) + "/"}
    own |= {name for name in (platform.node(), getpass.getuser()) if len(name) > 5}
    for name, path in pushed.files("me/birds").items():
        content = path.read_bytes()
        for word in own:
            assert word.encode() not in content, (word, name)
    before = (par / "summary.json").read_text() + (par / "checkpoint" / "added.json").read_text()
    assert "secret-project" in before, "it was in the run"
    contents = RunDirectory(pushed.files("me/birds")["config.toml"].parent).load()
    assert contents is not None
    assert contents["contents"] == []
    assert _images(contents) == 0


def test_it_is_a_whole_run(pushed: FakeHub, tmp_path: Path) -> None:
    """Verified as any other, and taught one more task after it was copied."""
    shutil.copytree(pushed.files("me/birds")["config.toml"].parent, tmp_path / "copy")
    found = lifelong.verify(tmp_path / "copy")
    assert {each.file: each.condition for each in found.files if each.condition != "good"} == {"curves.jsonl": "unchecked"}
    assert found.sound
    for number in range(12):
        for which, label in enumerate("uv"):
            (tmp_path / "more" / label).mkdir(parents=True, exist_ok=True)
            picture(2 * number + which, 2).save(tmp_path / "more" / label / f"{number}.png")
    grown = learn_more(tmp_path / "copy", f"folder:{tmp_path / 'more'}", HERE)
    assert [task.name for task in grown.tasks][-2:] == ["drawn", "more"]


def test_private_unless_asked(hub: FakeHub, par: Path) -> None:
    made = lifelong.push(par, "hub:me/hidden")
    assert hub.private["me/hidden"] is True
    assert made["public"] is False
    assert made["id"] == "me/hidden"
    assert made["bytes"] == sum(path.stat().st_size for path in hub.files("me/hidden").values())
    assert lifelong.push(par, "hub:me/shown", public=True)["public"]
    assert hub.private["me/shown"] is False
    before = list(hub.asked)
    with pytest.raises(LifelongError, match=r"hub:me/shown exists and everybody can see it; push with --public"):
        lifelong.push(par, "hub:me/shown")
    assert [one for one in hub.asked[len(before) :] if not one.startswith("info")] == []


def test_a_second_push_replaces_the_first_and_leaves_other_repositories_alone(pushed: FakeHub, par: Path, tmp_path: Path) -> None:
    first = pushed.commits["me/birds"][-1]
    smaller = small_run(tmp_path, "finetune")
    lifelong.push(smaller, "hub:me/birds")
    assert "checkpoint/added.json" not in pushed.files("me/birds")
    assert len(lifelong.Learner.load("hub:me/birds", download=True).tasks) == 3
    assert len(lifelong.Learner.load(f"hub:me/birds@{first}", download=True).tasks) == 4
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "model.bin").write_text("theirs")
    pushed.create_repo("me/other", repo_type="model", private=True)
    pushed.upload_folder(repo_id="me/other", repo_type="model", folder_path=strange, commit_message="", delete_patterns=[])
    with pytest.raises(LifelongError, match=r"hub:me/other holds other files \('model.bin'\)"):
        lifelong.push(par, "hub:me/other")
    with pytest.raises(LifelongError, match=r"hub:me/other is not a run of lifelong: it has no lifelong.json"):
        lifelong.Learner.load("hub:me/other", download=True)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda files: files["summary.json"].write_text(files["summary.json"].read_text() + " "), "summary.json is not what was pushed"),
        (lambda files: files["checkpoint/run.safetensors"].write_bytes(b"short"), "run.safetensors is not what was pushed"),
        (lambda files: files["config.toml"].unlink(), "config.toml cannot be read"),
        (lambda files: (files["config.toml"].parent / "checkpoint" / "more.bin").write_text("x"), "more.bin is not in lifelong.json"),
        (lambda files: files["lifelong.json"].write_text("{"), "lifelong.json is damaged"),
        (lambda files: files["lifelong.json"].write_text('{"form": 1}'), "lifelong.json: 'library'"),
        (
            lambda files: files["lifelong.json"].write_text('{"form": 1, "library": "1", "files": {"../x": {"sha256": "", "bytes": 0}}}'),
            "names '../x', which is no file of a run",
        ),
        (
            lambda files: files["lifelong.json"].write_text('{"form": 9, "library": "7.0", "files": {}}'),
            "pushed by lifelong 7.0, in form 9",
        ),
    ],
    ids=["changed", "cut", "missing", "more", "no JSON", "wrong form", "elsewhere", "newer"],
)
def test_what_is_downloaded_is_checked(pushed: FakeHub, damage, said: str) -> None:
    damage(pushed.files("me/birds"))
    with pytest.raises(LifelongError, match=r"^hub:me/birds") as error:
        lifelong.Learner.load("hub:me/birds", download=True)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_card_edited_on_the_hub_is_no_damage(pushed: FakeHub) -> None:
    pushed.files("me/birds")["README.md"].write_text("# Mine")
    assert lifelong.Learner.load("hub:me/birds", download=True).tasks


@pytest.mark.parametrize("method", ["er", "joint"])
def test_runs_that_keep_images_are_not_pushed(hub: FakeHub, tmp_path: Path, method: str) -> None:
    config = configured("digits?tasks=1", method, 0, preset="quick", epochs=1, init_channels=2)
    run_experiment(config, tmp_path / "run", HERE)
    with pytest.raises(LifelongError, match=rf"the method '{method}' keeps [\d,]+ images of its tasks, and they would be published"):
        lifelong.push(tmp_path / "run", "hub:me/birds")
    assert hub.asked == []


def test_features_that_are_pixels_are_not_pushed(hub: FakeHub, tmp_path: Path) -> None:
    settings = {"preset": "quick", "epochs": 1, "variant": "fixed", "init_channels": 2, "extractor": "pixels", "keep_features": True}
    run_experiment(configured("digits?tasks=1", "par", 0, **settings), tmp_path / "run", HERE)
    with pytest.raises(LifelongError, match="keep_features keeps the images themselves"):
        lifelong.push(tmp_path / "run", "hub:me/birds")
    assert hub.asked == []


def test_errors_of_the_hub_are_one_line_without_a_token(hub: FakeHub, par: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object, **named: object) -> None:
        raise RuntimeError("403 Forbidden: token hf_AbCdEf012345 may not write\nRequest ID: 7")

    monkeypatch.setattr(hub, "upload_folder", refused)
    with pytest.raises(LifelongError, match=r"cannot push to hub:me/birds \(RuntimeError: 403 Forbidden") as error:
        lifelong.push(par, "hub:me/birds")
    assert "AbCdEf" not in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(LifelongError, match="cannot download hub:you/none"):
        lifelong.Learner.load("hub:you/none", download=True)


@pytest.mark.parametrize(
    "name", ["hub:birds", "hub:", "hub:../me", "hub:me/../x", "hub:a/b/c", "hub:me/birds@", "hub:me/b irds", "hub:/etc/x"]
)
def test_ids_are_checked(hub: FakeHub, par: Path, name: str) -> None:
    with pytest.raises(LifelongError, match="is not a run on the Hub; write hub:OWNER/NAME"):
        lifelong.push(par, name)
    with pytest.raises(LifelongError, match="is not a run on the Hub"):
        lifelong.Learner.load(name, download=True)
    assert hub.asked == []


def test_places() -> None:
    assert hub_run("hub:me/birds") == HubRun("me/birds")
    assert hub_run("hub:me/birds@v1.0/x") == HubRun("me/birds", "v1.0/x")
    assert str(HubRun("me/birds", "main")) == "hub:me/birds@main"
    assert hub_run(Path("runs/par")) is None
    with pytest.raises(LifelongError, match="'runs/other' is not a place on the Hub"):
        lifelong.push("runs/par", "runs/other")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("digits?tasks=3", "digits?tasks=3"),
        ("ctrl-s-minus", "ctrl-s-minus"),
        ("/home/alice/streams/mine.toml", "mine.toml"),
        ("../mine.toml", "mine.toml"),
        ("C:\\Users\\alice\\mine.toml", "mine.toml"),
        ("folder:/home/alice/clinic/photos", "folder:photos"),
        ("folder:clinic/photos?size=32", "folder:photos?size=32"),
        ("csv:/data/alice/list.csv?tasks=2", "csv:list.csv?tasks=2"),
        ("hub:me/birds?tasks=5", "hub:me/birds?tasks=5"),
    ],
)
def test_streams_lose_their_folders(name: str, wanted: str) -> None:
    assert public_stream(name) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/home/alice/runs/par/x.json was damaged", "x.json was damaged"),
        ("see ~/runs/par and ../other/here", "see par and here"),
        ("C:\\Users\\alice\\x.json, and more", "x.json, and more"),
        ("of 'folder:/home/alice/photos': 3", "of 'folder:photos': 3"),
        ("1/2 of the images, and/or 3 / 4", "1/2 of the images, and/or 3 / 4"),
        ("https://arxiv.org/abs/2304.05288", "https://arxiv.org/abs/2304.05288"),
        (
            "data check: 2 of 24 images of 'photos' are of one colour: a/p-1.png, b/p-2.png.",
            "data check: 2 of 24 images of 'photos' are of one colour.",
        ),
        ("data check: nothing: more: and more", "data check: nothing."),
        (
            "data check: 2 pictures of 'a' have more than one label, for example x.",
            "data check: 2 pictures of 'a' have more than one label.",
        ),
        (
            "data check: 2 of 24 images are there twice in one split, such as a/1.png.",
            "data check: 2 of 24 images are there twice in one split.",
        ),
        ("left out: ward/John.JPG, also 7.tiff", "left out: an image, also an image"),
        ("of 'folder:/home/alice/drawn' 2", "of 'folder:drawn' 2"),
        ("5 of 9: stays", "5 of 9: stays"),
    ],
)
def test_texts_lose_their_paths(text: str, wanted: str) -> None:
    assert scrubbed(text) == wanted
    assert scrubbed({"a": [text, 1, None, ("b", text)]}) == {"a": [wanted, 1, None, ("b", wanted)]}


def test_images_are_found_wherever_they_are() -> None:
    images = Split(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)).images
    masks: Tensor = torch.zeros(5, 4, 4, 4, dtype=torch.uint8)
    assert _images({"a": [{"b": (images, masks)}, images[:2]], "c": images.float(), "d": None}) == 7


def test_on_the_command_line(hub: FakeHub, par: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(par), "hub:me/birds", "--license", "mit"]) == 0
    out = capsys.readouterr().out
    assert "only its owner can see it: https://hub.example/me/birds/commit/" in out
    picture(1, 1).save(tmp_path / "one.png")
    assert main(["predict", "hub:me/birds", "one.png", "--task", "drawn", "--json"]) == 2
    assert "allow the download with --download" in capsys.readouterr().err
    assert main(["predict", "hub:me/birds", "one.png", "--task", "drawn", "--json", "--download"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["task"] == "drawn"
    assert main(["push", str(par), "hub:me/birds", "--license", "MIT License"]) == 2
    assert "such as apache-2.0" in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, par: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: lifelong.push(par, "hub:me/birds"), lambda: lifelong.Learner.load("hub:me/birds", download=True)):
        with pytest.raises(LifelongError, match=r"needs the package huggingface_hub: pip install 'lifelong\[hub\]'"):
            call()


def test_the_real_library_without_a_network(par: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cache, as it lies on the disk, is read without asking the Hub."""
    from huggingface_hub import constants

    from lifelong.experiment.saved import open_run
    from lifelong.publishing import copy_for_others

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(LifelongError, match="is not in the cache of the Hub"):
        lifelong.Learner.load("hub:me/birds")
    repository, commit = tmp_path / "cache" / "models--me--birds", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    copy_for_others(open_run(par), repository / "snapshots" / commit, HubRun("me/birds"))
    assert lifelong.Learner.load("hub:me/birds", environment=HERE).tasks == lifelong.Learner.load(par).tasks
