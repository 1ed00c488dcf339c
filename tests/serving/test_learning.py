"""One more task is learned in the background, while predictions go on; stopped, failed or killed, the run is as it was."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lifelong.data.cache import cache_folder
from lifelong.learner import Learner
from lifelong.serving.application import Service
from lifelong.serving.measuring import resident_bytes
from lifelong.serving.workshop import Progress, Workshop
from tests.serving.served import FREE, HERE, asked, contents, draft_of, parts, picture, shades, until_quiet
from tests.serving.test_api import sent


def loaded(client, images, count, clients):
    """What `count` requests from several clients at once are answered, each with two of the images."""
    pairs = [(place, (place + 1) % len(images)) for place in range(len(images))]

    def one(number):
        pair = pairs[number % len(pairs)]
        answer = client.post("/v1/predict", files=parts([images[place] for place in pair]))
        told = answer.json()
        return answer.status_code, pair, told.get("version"), told.get("predictions")

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, range(count)))


def check_answers(found, images, learners):
    """Every answer is that of the model that it names, to rounding."""
    expected = {version: learner.predict(images) for version, learner in learners.items()}
    for status, pair, version, rows in found:
        assert status == 200
        for place, row in zip(pair, rows, strict=True):
            right = expected[version][place]
            assert (row["task"], row["label"], row["strange"]) == (right.task, right.label, right.strange)
            assert row["probability"] == pytest.approx(right.probability, abs=1e-5)


def check_forgotten(client, run, draft, images):
    """The task that was learned here goes, with its images, wherever they are; all others answer as before."""
    # What the pictures are as pixels, in the run, its uploads, and the cache of decoded images.
    pixels = np.asarray(Image.open(io.BytesIO(shades(1)["bright"][0]))).transpose(2, 0, 1).tobytes()
    places = [run, cache_folder()]

    def holding(*words):
        files = [file for place in places for file in place.rglob("*") if file.is_file() and file.name != ".lock"]
        return [file for file in files if any(word in file.read_bytes() for word in words)]

    assert {place for place in places for file in holding(pixels, draft.encode()) if file.is_relative_to(place)} == {*places}
    before = contents(run)
    answers = [client.post("/v1/predict", files=parts(images), data={"task": name}).json()["predictions"] for name in ("a", "b")]
    told = client.get("/v1/forget?task=light").json()
    assert told.pop("refused") is None
    assert told["removed"] == [
        "1 folder of uploaded images",
        f"decoded copies of its images, and their checksums, in {cache_folder()}",
        "3 earlier versions, which cannot be put back any more",
    ]
    assert told["left"] == ["copies of the run, exports, reports and pushes outside of its directory"]
    assert contents(run) == before
    answer = client.post("/v1/forget", json={"task": "light"}).json()
    assert answer["tasks"] == ["a", "b", "a-again"]
    assert {key: answer[key] for key in told} == told
    assert holding(pixels, draft.encode(), b'"light"') == []
    assert client.get(f"/v1/drafts/{draft}").status_code == 404
    assert client.get("/v1/learning").json() == {"learning": None, "last": None}
    assert [version["task"] for version in client.get("/v1/history").json()["versions"]] == ["a-again"]
    assert "light</" not in client.get("/v1/report").text
    told = client.get("/v1/tasks").json()
    assert (told["version"], [task["name"] for task in told["tasks"]]) == (3, ["a", "b", "a-again"])
    assert [client.post("/v1/predict", files=parts(images), data={"task": name}).json()["predictions"] for name in ("a", "b")] == answers


def learned_under_load(run, requests):
    """Learn a task while 8 clients ask; gives the memory that the server took meanwhile."""
    before = Learner.load(shutil.copytree(run, run.with_name("before")), environment=HERE)
    images = [*sent(run)[0], *shades(2)["bright"]]
    with asked(Service(run, HERE, FREE)) as client:
        loaded(client, images, 80, 8)  # what is kept for the next request is there from now on
        memory = resident_bytes()
        draft = draft_of(client, "light", shades(20))
        assert client.post(f"/v1/drafts/{draft}/learn").status_code == 202
        refused = client.post(f"/v1/drafts/{draft}/learn")
        assert refused.json()["error"] == "'light' is being learned; wait for it, or cancel it"
        assert client.post("/v1/forget", json={"task": "b"}).json() == refused.json()
        assert client.get("/v1/forget?task=b").json() == {"task": "b", "refused": refused.json()["error"]}
        assert client.delete(f"/v1/drafts/{draft}").status_code == 400
        found = loaded(client, images, requests, 8)
        seen = client.get("/v1/learning").json()
        last = until_quiet(client)
        found += loaded(client, images, 40, 8)
        grown = resident_bytes() - memory
        assert last == {"task": "light", "draft": draft, "outcome": "learned", "line": ""}
        assert client.get(f"/v1/drafts/{draft}").json()["state"] == "learned"
        tasks = client.get("/v1/tasks").json()
        assert [task["name"] for task in tasks["tasks"]] == ["a", "b", "a-again", "light"]
        (row,) = client.post("/v1/predict", files=parts([picture(210, 99)])).json()["predictions"]
        assert (row["task"], row["label"]) == ("light", "bright")
        assert seen["learning"] is None or seen["learning"]["task"] == "light"
        after = Learner.load(run, environment=HERE)
        assert after.tasks["light"] == ("bright", "dark")
        check_forgotten(client, run, draft, images)
    versions = Counter(version for _, _, version, _ in found)
    assert set(versions) == {1, 2}
    check_answers(found, images, {1: before, 2: after})
    return grown


@pytest.fixture
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_own_cache")
def test_predictions_go_on_while_a_task_is_learned(run):
    assert learned_under_load(run, 60) < 200e6


@pytest.mark.slow
@pytest.mark.usefixtures("_own_cache")
def test_a_thousand_requests_from_eight_clients_while_a_task_is_learned(run):
    assert learned_under_load(run, 1000) < 200e6


def test_stopped_by_the_server_s_end_and_then_cancelled(run, caplog):
    """The next start goes on with the task; cancelling it leaves every file of the run as before."""
    before = contents(run)
    caplog.set_level("INFO")
    with asked(Service(run, HERE, FREE)) as client:
        draft = draft_of(client, "light", shades(100))
        client.post(f"/v1/drafts/{draft}/learn")
        while client.get("/v1/learning").json()["learning"]["phase"] == "start":
            time.sleep(0.01)
    with asked(Service(run, HERE, FREE)) as client:
        told = client.get("/v1/learning").json()["learning"]
        assert (told["task"], told["draft"], told["continued"]) == ("light", draft, True)
        assert "'light' was being learned when the server ended; going on with it" in caplog.text
        assert client.delete("/v1/learning").status_code == 202
        assert until_quiet(client) == {"task": "light", "draft": draft, "outcome": "cancelled", "line": ""}
        assert contents(run) == before
        assert client.get("/v1/run").json()["version"] == 1
        shown = client.get(f"/v1/drafts/{draft}").json()
        assert (shown["state"], shown["images"]) == ("collecting", 200)


def stub(folder: Path, text: str) -> tuple[str, ...]:
    """A learning process that does something else."""
    file = folder / "stub.py"
    file.write_text("import json, os, signal, sys, time\ntold = json.loads(sys.stdin.readline())\n" + text)
    return (sys.executable, str(file))


def learned_by(run, tmp_path, text, act=lambda workshop: None):
    """What becomes of a task that another process learns."""
    service = Service(run, HERE, FREE)
    try:
        draft = service._drafts.make("light")
        for label, images in shades(2).items():
            service._drafts.add(draft, label, images)
        workshop = Workshop(service.model, service._drafts, HERE, stub(tmp_path, text))
        workshop.begin(draft)
        act(workshop)
        assert workshop.wait(60.0)
        return workshop.status(), draft
    finally:
        service.close()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("os._exit(3)", "the process that learned has ended with code 3 (killed, or out of memory?); learn it again"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "the process that learned has ended with code -9 (killed, or out of memory?); learn it again",
        ),
        ("print(json.dumps(['failed', 'what is wrong; what to do']))", "what is wrong; what to do"),
        ("print(json.dumps(['crashed', 'ValueError: x', 'Traceback ...']))", "ValueError: x"),
        ("print('no JSON'); print('[]'); print('7'); print(json.dumps(['failed', 'a line']))", "a line"),
    ],
)
def test_a_process_that_fails_is_one_line(run, tmp_path, text, line):
    before = contents(run)
    status, draft = learned_by(run, tmp_path, text)
    assert status == {"learning": None, "last": {"task": "light", "draft": draft.id, "outcome": "failed", "line": line}}
    assert (draft.kept.state, draft.kept.failure) == ("collecting", line)
    assert contents(run) == before


def test_a_process_that_does_not_end(run, tmp_path, monkeypatch):
    """It is killed after a while, and cancelling means what it says."""
    monkeypatch.setattr("lifelong.serving.workshop.PATIENCE", 0.3)
    text = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(json.dumps(['phase', 'train']), flush=True)\ntime.sleep(600)"

    def act(workshop):
        while workshop.status()["learning"]["phase"] == "start":
            time.sleep(0.01)
        workshop.cancel()

    status, _ = learned_by(run, tmp_path, text, act)
    assert status["last"]["outcome"] == "cancelled"


def test_what_the_process_is_told(run, tmp_path):
    text = f"open({str(tmp_path / 'told')!r}, 'w').write(json.dumps(told))\nsys.exit(1)"
    _, draft = learned_by(run, tmp_path, text)
    told = json.loads((tmp_path / "told").read_text())
    assert told["address"] == f"csv:{run / 'uploads' / draft.id / 'list.csv'}?flip=false"
    assert (told["run"], told["name"], told["environment"]["threads"]) == (str(run), "light", 1)


def test_images_that_cannot_be_learned(run):
    """The library's line arrives, and the images can be completed."""
    with asked(Service(run, HERE, FREE)) as client:
        draft = draft_of(client, "light", shades(1))
        client.post(f"/v1/drafts/{draft}/learn")
        last = until_quiet(client)
        assert last["outcome"] == "failed"
        assert "light" in last["line"]
        assert "\n" not in last["line"]
        shown = client.get(f"/v1/drafts/{draft}").json()
        assert (shown["state"], shown["failure"]) == ("collecting", last["line"])


def test_what_a_restart_finds(run):
    """Drafts are there again; what was broken off is dropped, and said so; what a hostile run holds is not touched."""
    with asked(Service(run, HERE, FREE)) as client:
        draft = draft_of(client, "light", shades(2))
    folder = run / "uploads" / draft
    (folder / "000099.png").write_bytes(b"of a request that was broken off")
    (run / "uploads" / ("0" * 16)).mkdir()
    evil = run / "uploads" / ("1" * 16)
    evil.mkdir()
    image = '{"file": "../../../config.toml", "label": "x", "bytes": 1, "digest": ""}'
    (evil / "draft.json").write_text('{"name": "x", "state": "learning", "images": [' + image + "]}")
    (run / "uploads" / "notes.txt").write_text("a person's own")
    service = Service(run, HERE, FREE)
    try:
        assert [found.id for found in service._drafts] == [draft]
        assert sorted(service._drafts.notes) == [
            "'light' with 4 images is still being put together",
            f"an upload was broken off before its first image was kept, or is damaged; dropped ({'0' * 16})",
            f"an upload was broken off before its first image was kept, or is damaged; dropped ({'1' * 16})",
        ]
        assert not (folder / "000099.png").exists()
        assert (run / "config.toml").exists()
        assert (run / "uploads" / "notes.txt").exists()
    finally:
        service.close()


def test_the_time_left():
    progress = Progress("light", "0")
    assert progress.seconds_left() is None
    progress.expected = 100.0
    progress.hear(["phase", "train"])
    assert progress.seconds_left() == pytest.approx(100, abs=1)
    progress.started = progress.phase_began = time.monotonic() - 60
    assert progress.seconds_left() == pytest.approx(40, abs=1)
    progress.hear(["epoch", "train", 10, 30, 0.5, None])
    assert progress.seconds_left() == pytest.approx(120, abs=2)  # twenty more at six seconds each
    progress.hear(["epoch", "train", 30, 30, 0.5, 0.9])
    assert progress.seconds_left() == pytest.approx(40, abs=1)
    progress.started = time.monotonic() - 200
    progress.hear(["phase", "evaluate"])
    assert progress.seconds_left() is None  # it takes longer than such tasks did
    assert progress.plain()["loss"] is None


def test_a_process_whose_server_is_gone_ends(run):
    """Its stdin ends with the server, however that ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from lifelong.serving.worker import _end_with_the_server as end; print(1, flush=True); end()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(30) == 1
    process.stdout.close()
