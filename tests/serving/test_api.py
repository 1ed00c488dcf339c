"""What is answered to which request."""

import json
import math
import os
import re

import pytest

import lifelong
from lifelong.errors import LifelongError
from lifelong.learner import Learner, Prediction
from lifelong.records.task import DECISION_KINDS
from lifelong.serving import describing
from lifelong.serving.application import Service
from tests.serving.served import FREE, HERE, asked, parts, picture


def sent(learned):
    """Some test images of each task as files, and what `Learner.predict` says of them."""
    stream = lifelong.open_stream(learned.parent / "three.toml")
    from io import BytesIO

    from PIL import Image

    files = []
    for task in range(3):
        for image in stream[task].test.images[:3]:
            file = BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
            files.append(file.getvalue())
    return files, Learner.load(learned, environment=HERE).predict(files)


def test_predictions_are_those_of_the_learner(client, learned):
    files, expected = sent(learned)
    told = client.post("/v1/predict", files=parts(files)).json()
    assert told["version"] == 1
    assert [row["image"] for row in told["predictions"]] == list(range(len(files)))
    for row, answer in zip(told["predictions"], expected, strict=True):
        assert (row["task"], row["label"], row["strange"], row["error"]) == (answer.task, answer.label, answer.strange, None)
        assert row["probability"] == pytest.approx(answer.probability, abs=1e-5)
        assert row["classes"] == pytest.approx(answer.classes, abs=1e-5)
        assert row["tasks"] == pytest.approx(answer.tasks, abs=1e-5)
        assert math.fsum(row["classes"].values()) == pytest.approx(1, abs=1e-5)


def test_an_image_as_the_body_with_a_task(client, learned):
    files, _ = sent(learned)
    (expected,) = Learner.load(learned, environment=HERE).predict(files[:1], "b")
    answer = client.post("/v1/predict?task=b", content=files[0], headers={"content-type": "image/png"})
    (row,) = answer.json()["predictions"]
    assert (row["task"], row["label"], row["tasks"], row["task_probability"]) == ("b", expected.label, None, None)
    field = client.post("/v1/predict", files=parts(files[:1]), data={"task": "b"}).json()["predictions"]
    assert field == [row]


def test_an_image_unlike_anything_learned_is_flagged(client):
    noise = picture(127, size=64)
    (row,) = client.post("/v1/predict", files=parts([noise])).json()["predictions"]
    assert row["strange"] is True


def test_a_network_whose_numbers_have_run_away():
    answer = Prediction("a", "0", math.nan, {"0": math.nan, "1": math.inf}, None, None)
    told = describing.answer_of(0, answer)
    assert json.loads(json.dumps(told, allow_nan=False))["classes"] == {"0": None, "1": None}
    assert (told["probability"], told["tasks"], told["task_probability"]) == (None, None, None)


def test_an_unknown_task(client):
    answer = client.post("/v1/predict", files=parts([picture(9)]), data={"task": "A"})
    assert (answer.status_code, answer.json()["error"]) == (404, "no task 'A'; did you mean 'a'?")


def test_the_run_and_its_tasks(client, learned):
    about = client.get("/v1/run").json()
    assert about["sentence"].startswith("3 tasks learned with ")
    assert about["can"] == {"learn": True, "roll_back": True, "forget": True, "log_out": False}
    summary = json.loads((learned / "summary.json").read_text())
    told = client.get("/v1/tasks").json()["tasks"]
    assert [task["name"] for task in told] == ["a", "b", "a-again"]
    for index, (task, record) in enumerate(zip(told, summary["tasks"], strict=True)):
        assert task["classes"] == record["classes"]
        assert task["decision"] in DECISION_KINDS
        assert task["decided"]
        assert task["reason"] == record["reason"]
        assert task["accuracy_now"] == summary["accuracy"][-1][index]
        assert {item["task"]: item["distance"] for item in task["distances"]} == dict(
            zip(["a", "b", "a-again"], record["divergences"] or [], strict=False)
        )
        found = [item["distance"] for item in task["distances"]]
        assert found == sorted(found)


def test_what_a_shared_expert_is_told_by(client):
    again = client.get("/v1/tasks").json()["tasks"][2]
    assert again["decision"] == "reuse-expert"
    assert again["decided"].startswith("It shares the expert of a")


def test_metrics(client):
    client.post("/v1/predict", files=parts([picture(3), b"no image"]))
    client.get("/v1/unheard-of-path-of-a-stranger")
    answer = client.get("/v1/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in lines:
        assert line.startswith("# TYPE lifelong_") or re.fullmatch(r'lifelong_\w+(\{(\w+="[^"\n]*",?)+\})? [0-9.e+-]+', line), line
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['lifelong_requests_total{route="predict",status="200"}']) >= 1
    assert float(values['lifelong_images_total{kind="unusable"}']) >= 1
    assert float(values["lifelong_tasks"]) == 3
    assert float(values["lifelong_resident_memory_bytes"]) > 1e7
    assert "stranger" not in answer.text
    count = float(values['lifelong_request_seconds_count{route="predict"}'])
    assert float(values['lifelong_request_seconds_bucket{route="predict",le="+Inf"}']) == count


def test_a_draft(client):
    draft = client.post("/v1/drafts", json={"name": " birds "}).json()
    assert (draft["name"], draft["state"], draft["images"]) == ("birds", "collecting", 0)
    images = [picture(40, 1), picture(40, 1), b"broken", picture(50, 2)]
    told = client.post(f"/v1/drafts/{draft['id']}/images", data={"class": "heron"}, files=parts(images)).json()
    assert told["taken"] == 2
    assert told["left_out"] == {"1": "a copy of an image of class 'heron'", "2": "no image, or of an unknown format"}
    again = client.post(f"/v1/drafts/{draft['id']}/images", data={"class": "stork"}, files=parts(images[:1])).json()
    assert again["left_out"] == {"0": "a copy of an image of class 'heron'"}
    shown = client.get(f"/v1/drafts/{draft['id']}").json()
    assert shown["classes"] == {"heron": 2}
    assert shown in client.get("/v1/drafts").json()["drafts"]
    few = client.post(f"/v1/drafts/{draft['id']}/learn")
    assert (few.status_code, few.json()["error"]) == (400, "'birds' has 1 class; a task has two or more")
    assert client.delete(f"/v1/drafts/{draft['id']}").status_code == 204
    assert client.get(f"/v1/drafts/{draft['id']}").status_code == 404


def test_a_name_that_is_taken_is_refused_before_images_are_sent(client):
    answer = client.post("/v1/drafts", json={"name": " a "})
    assert (answer.status_code, answer.json()["error"]) == (400, "a task 'a' has been learned; give this one another name")
    assert client.delete("/v1/learning").status_code == 409


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"name": 3}', '{"name": "x", "more": 1}', "nonsense", "[" * 10000, '"\ud800"'])
def test_json_that_is_not_what_is_wanted(client, body):
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/drafts", content=body.encode("utf-8", "surrogatepass"), headers=headers)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("name", ["", "   ", "a\x07b", "line\nend", "x" * 121, "\u202e", "\ud800"])
def test_names_that_cannot_be_used(client, name):
    answer = client.post("/v1/drafts", content=json.dumps({"name": name}), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "give 1 to 120 printable characters" in answer.json()["error"]


def test_only_to_read(learned):
    before = sorted(learned.rglob("*"))
    with asked(Service(learned, HERE, FREE, read_only=True)) as client:
        assert client.get("/v1/run").json()["can"]["learn"] is False
        assert client.post("/v1/drafts", json={"name": "x"}).status_code == 404
        assert client.post("/v1/forget", json={"task": "b"}).status_code == 404
        assert client.get("/v1/learning").status_code == 404
        assert client.post("/v1/predict", files=parts([picture(5)])).status_code == 200
    assert sorted(learned.rglob("*")) == before


def test_only_one_server_learns_into_a_run(run):
    with asked(Service(run, HERE, FREE)):
        with pytest.raises(LifelongError, match=r"another server learns into .*; stop it, or give --read-only$"):
            Service(run, HERE, FREE)
        Service(run, HERE, FREE, read_only=True).close()
    Service(run, HERE, FREE).close()


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere")
def test_a_run_that_cannot_be_written(run):
    run.chmod(0o555)
    try:
        with pytest.raises(LifelongError, match=r"cannot keep uploads in .*; make it writable, or give --read-only"):
            Service(run, HERE, FREE)
    finally:
        run.chmod(0o755)


def test_wrong_methods_and_paths(client):
    assert client.get("/v1/predict").status_code == 405
    assert client.get("/v2/run").json() == {"error": "not found"}
    assert client.get("/v1/drafts/0123456789abcdef").status_code == 404


def test_versions(client, monkeypatch):
    """The versions of a run are those of the library."""
    gone = []
    monkeypatch.setattr(lifelong, "rollback", lambda run, to: gone.append(to))
    monkeypatch.setattr(describing, "write_report", lambda run, summary: gone.append(summary.method))
    assert client.get("/v1/run").json()["can"]["roll_back"] is True
    told = client.get("/v1/history").json()["versions"]
    assert [(one["number"], one["task"], one["current"]) for one in told] == [(1, "a", False), (2, "b", False), (3, "a-again", True)]
    before = client.get("/v1/run").json()["version"]
    assert client.post("/v1/rollback", json={"to": True}).status_code == 400
    assert client.post("/v1/rollback", json={"to": 1}).json()["version"] == before + 1
    assert gone == [1, "par"]


def test_what_cannot_be_forgotten(client):
    """The library's reason is the answer, before anything is asked for, and the run stays as it is."""
    before = [client.get(f"/v1/{what}").json() for what in ("run", "tasks", "history")]
    reason = "task 'a' cannot be forgotten: "
    answer = client.post("/v1/forget", json={"task": "a"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)
    assert "with other tasks of its group; without it 'a-again' would have to be learned again" in answer.json()["error"]
    assert client.get("/v1/forget?task=a").json() == {"task": "a", "refused": answer.json()["error"]}
    for answer in (client.get("/v1/forget?task=A"), client.post("/v1/forget", json={"task": "A"})):
        assert (answer.status_code, answer.json()["error"]) == (404, "no task 'A'; did you mean 'a'?")
    assert client.get("/v1/forget").status_code == 404
    assert client.post("/v1/forget", json={"task": ["a"]}).status_code == 400
    assert [client.get(f"/v1/{what}").json() for what in ("run", "tasks", "history")] == before


def test_a_bug_is_one_line_for_the_client(client, monkeypatch, caplog):
    monkeypatch.setattr("lifelong.serving.application.tasks_of", lambda opened: 1 / 0)
    answer = client.get("/v1/tasks")
    assert (answer.status_code, answer.json()) == (500, {"error": "the server has failed on this request; its log says why"})
    assert "ZeroDivisionError" in caplog.text
    assert answer.headers["x-content-type-options"] == "nosniff"
