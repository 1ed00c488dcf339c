"""Requests of somebody who means harm: the server answers in one line, opens no path, and keeps its memory."""

import http.client
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from PIL import Image

from lifelong.serving.application import Service
from lifelong.serving.measuring import resident_bytes
from tests.serving.served import FREE, HERE, asked, draft_of, listening, parts, picture

TIGHT = replace(
    FREE,
    request_bytes=200_000,
    images=4,
    pixels=100_000,
    request_pixels=150_000,
    header_seconds=0.5,
    body_seconds=0.5,
    idle_seconds=1,
    connections=24,
)


@pytest.fixture(scope="module")
def port(learned) -> Iterator[int]:
    """A listening server with tight limits."""
    with listening(Service(learned, HERE, TIGHT, read_only=True)) as port:
        yield port


@pytest.fixture(scope="module")
def tight(learned):
    with asked(Service(learned, HERE, TIGHT, read_only=True)) as client:
        yield client


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes, rows: bytes = b"") -> bytes:
    """A PNG that says it has this size, whatever it holds."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def frames() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    return file.getvalue()


MANY_MEGABYTES = zlib.compress(bytes(40_000_000))
BAD = {
    "an empty file": (b"", "empty"),
    "text": (b"hello", "no image, or of an unknown format"),
    "a script": (b"#!/bin/sh\nrm -rf /\n", "no image, or of an unknown format"),
    "a program of PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image, or of an unknown format"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no image, or of an unknown format"),
    "four gigapixels": (png(65_000, 65_000), "too many pixels"),
    "more pixels than are allowed": (png(400, 400, rows=bytes(400 * 1201)), "too many pixels: 160,000 of at most 100,000"),
    "a bomb in a text": (png(8, 8, chunk(b"zTXt", b"a\0\0" + MANY_MEGABYTES), rows=bytes(8 * 25)), ""),
    "a bomb in a profile": (png(8, 8, chunk(b"iCCP", b"a\0\0" + MANY_MEGABYTES), rows=bytes(8 * 25)), None),
    "a bomb in the pixels": (png(8, 8, rows=bytes(20_000_000)), None),
    "no pixels": (png(8, 8), "truncated"),
    "a size of nothing": (png(0, 0), ""),
    "half of an image": (picture(90, size=64)[:3000], "truncated"),
    "a film": (frames(), "2 frames"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_image_that_is_none_is_an_answer(tight, what):
    """None: it may also be read; empty: whatever is said of it."""
    content, said = BAD[what]
    memory = resident_bytes()
    answer = tight.post("/v1/predict", files=parts([content, picture(20)]))
    assert resident_bytes() - memory < 200e6
    assert answer.status_code == 200
    bad, good = answer.json()["predictions"]
    assert good["label"]
    if said is None:
        assert bad["error"] or bad["label"]
    else:
        assert bad["error"].startswith(said)
        assert bad["error"]
    assert "\n" not in (bad["error"] or "")


def sent(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send bytes to a server, and return what it answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            while more := connection.recv(65536):
                answer += more
        except ConnectionError:
            pass  # it has closed the connection in the middle of what we send
        return answer


HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /v1/predict HTTP/1.1\r\n" + HOST + b"Content-Type: image/png\r\n"


def test_a_body_that_says_it_is_too_large(port):
    answer = sent(port, POST + b"Content-Length: 900000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"more than 195 kB in one request; send fewer images at a time" in answer


def test_a_body_that_does_not_say_how_large_it_is(port):
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    answer = sent(port, POST + b"Transfer-Encoding: chunked\r\n\r\n", *[piece] * 8)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_of_a_form_that_is_too_large(tight):
    answer = tight.post("/v1/predict", files=parts([bytes(300_000)]))
    assert answer.status_code == 413

    def pieces():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield bytes(10_000)

    answer = tight.post("/v1/predict", content=pieces(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413


def test_a_body_that_does_not_come(port):
    began = time.monotonic()
    answer = sent(port, POST + b"Content-Length: 1000\r\n\r\n", b"12345")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 20


def test_clients_that_send_slowly_keep_nobody_waiting(learned):
    """However many they are; those that send much wait for one another."""
    service = Service(learned, HERE, replace(FREE, memory_bytes=20_000), read_only=True)
    with listening(service) as port, ExitStack() as opened:
        for _ in range(30):
            slow = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            slow.sendall(POST + b"Content-Length: 500\r\n\r\n" + picture(20)[:100])
        content = picture(20)
        answer = sent(port, POST + f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "pieces", [[b""], [b"GET /v1/health HTTP/1.1\r\n"], [b"G"] * 3, [b"GET /v1/health HTTP/1.1\r\n" + HOST + b"\r\n", b"GET"]]
)
def test_a_request_that_does_not_come(port, pieces):
    """The connection is closed, also after a first request."""
    began = time.monotonic()
    answer = sent(port, *pieces, pause=0.05)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - began < 20


def test_many_connections(port):
    """More than there is room for are turned away; once their time is over, the server answers again."""
    with ExitStack() as opened:
        for _ in range(40):
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        answer = sent(port, b"GET /v1/health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        until = time.monotonic() + 30
        while time.monotonic() < until and not answer.startswith(b"HTTP/1.1 200 "):
            time.sleep(0.1)
            answer = sent(port, b"GET /v1/health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/run HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", (400, 403)),
        (b"GET /v1/run HTTP/1.1\r\n\r\n", (400,)),
        (b"GET /v1/run HTTP/1.0\r\n\r\n", (403,)),
        (b"GET http://evil.example/v1/run HTTP/1.1\r\nHost: evil.example\r\n\r\n", (403,)),
        (b"GET /v1/run HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 3_000_000 + b"\r\n\r\n", (0, 400)),
        (b"GET /" + b"a" * 3_000_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", (0, 400)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400,)),
        (POST + b"Content-Length: -1\r\n\r\n", (400,)),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", (400,)),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (200, 400)),
    ],
)
def test_requests_that_are_none(port, request_, status):
    """0: the connection is closed before all of it is sent."""
    answer = sent(port, request_)
    assert int(answer.split()[1] if answer else 0) in status


PATHS = (
    *("/page/../server.py", "/page/..%2fserver.py", "/page/%2e%2e/%2e%2e/learner.py", "/page//etc/passwd", "/page/%00", "/page/", "/page"),
    *("/page/page.css%00.html", "/page/page.css/", "/..%2f..%2fetc%2fpasswd", "//etc/passwd", "/v1/../../etc/passwd", "/uploads/x"),
    *("/v1/drafts/..", "/v1/drafts/..%2f..", "/v1/drafts/%2e%2e%2fconfig.toml", "/config.toml", "/checkpoint/run.safetensors"),
)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_of_a_request_is_opened(client, path):
    answer = client.get(path)
    assert answer.status_code in (307, 404)
    assert "root:" not in answer.text
    assert "import " not in answer.text


def test_no_name_of_a_client_becomes_a_file(run):
    names = ["../../../evil.png", "/tmp/evil.png", "con.png", "a\x00b.png", "list.csv", "draft.json", "%2e%2e%2f", "x" * 5000]
    with asked(Service(run, HERE, FREE)) as client:
        draft = client.post("/v1/drafts", json={"name": "../../evil"}).json()["id"]
        taken = 0
        for number, name in enumerate(names):
            files = [("image", (name, picture(100, number), "text/html"))]
            told = client.post(f"/v1/drafts/{draft}/images", data={"class": f"../{number}"}, files=files)
            assert told.status_code in (200, 400), (name, told.text)  # a head of a part of 5,000 letters may be refused
            taken += told.status_code == 200
    folder = run / "uploads" / draft
    assert {file.name for file in folder.iterdir()} == {"draft.json", *(f"{number + 1:06d}.png" for number in range(taken))}
    assert taken >= len(names) - 1
    assert not list(run.parent.rglob("*evil*"))
    assert json.loads((folder / "draft.json").read_text())["images"][0]["label"] == "../0"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"x", 415),
        ("application/json", b"{}", 415),
        ("", b"x", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"no form", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n", 400),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n--x--\r\n', 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="task"; filename="a"\r\n\r\n1\r\n--x--\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="task"\r\n\r\n' + b"a" * 100_000 + b"\r\n--x--\r\n",
            400,
        ),
        ("multipart/form-data; boundary=" + "x" * 5000, b"--x--", 400),
    ],
)
def test_bodies_that_are_no_images(tight, kind, body, status):
    answer = tight.post("/v1/predict", content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert "\n" not in answer.json()["error"]


def test_more_images_than_are_taken(tight):
    answer = tight.post("/v1/predict", files=parts([picture(1, seed) for seed in range(5)]))
    assert answer.status_code == 400
    assert answer.json()["error"] == "Too many files. Maximum number of files is 4."


def test_more_pixels_than_are_taken_at_once(tight):
    """Small files can be large images: what of them exceeds a request's share is not decoded."""
    large = png(300, 300, rows=bytes(300 * 901))
    first, second, third = tight.post("/v1/predict", files=parts([large, large, picture(1)])).json()["predictions"]
    assert first["label"]
    assert second["error"] == "too many pixels in one request; send fewer images at a time"
    assert third["label"]


def test_more_requests_than_can_wait(learned):
    with asked(Service(learned, HERE, replace(FREE, waiting=0), read_only=True)) as client:
        answer = client.post("/v1/predict", files=parts([picture(1)]))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_more_than_a_task_may_hold(run):
    few = replace(FREE, draft_images=3, draft_bytes=2000, drafts=2)
    with asked(Service(run, HERE, few)) as client:
        draft = draft_of(client, "small", {"x": [picture(9, seed) for seed in range(3)]})
        answer = client.post(f"/v1/drafts/{draft}/images", data={"class": "x"}, files=parts([picture(9, 9)]))
        assert (answer.status_code, answer.json()["error"]) == (
            400,
            "a task has at most 3 images here; learn larger ones with: lifelong learn",
        )
        draft = client.post("/v1/drafts", json={"name": "large"}).json()["id"]
        answer = client.post(f"/v1/drafts/{draft}/images", data={"class": "x"}, files=parts([picture(9, size=64)]))
        assert "MB of images here" in answer.json()["error"]
        assert client.get(f"/v1/drafts/{draft}").json()["images"] == 0
        answer = client.post("/v1/drafts", json={"name": "third"})
        assert answer.json()["error"] == "2 tasks are being put together; learn or delete one of them first"


@pytest.mark.parametrize("name", ["a\x07b", "a\nb", "\x1b[31mred", "\u202egnp", "", " ", "x" * 121])
def test_classes_that_act_on_a_terminal(client, name):
    draft = client.post("/v1/drafts", json={"name": "terminal"}).json()["id"]
    answer = client.post(f"/v1/drafts/{draft}/images", data={"class": name}, files=parts([picture(1)]))
    assert answer.status_code == 400
    assert answer.json()["error"].isprintable()
    client.delete(f"/v1/drafts/{draft}")


def test_names_are_text_in_the_list(run):
    """Quotes, commas and formulas stay what they are."""
    names = ['say "hi", you', "=1+1", "semi;colon", "тест 鳥", "<script>alert(1)</script>"]
    with asked(Service(run, HERE, FREE)) as client:
        draft = draft_of(client, "words", {name: [picture(50, number)] for number, name in enumerate(names)})
        service_list = run / "uploads" / draft
        assert client.get(f"/v1/drafts/{draft}").json()["classes"] == dict.fromkeys(names, 1)
    from lifelong.data.lists import list_csv
    from lifelong.serving.drafts import Drafts

    drafts = Drafts(run, FREE)
    drafts.write_list(drafts.get(draft))
    listed = list_csv(service_list / "list.csv", ("image",), ("label",), {})
    assert list(listed.splits["train"].labels) == names


@pytest.mark.parametrize("what", ["uploads", "uploads/notes.txt"])
def test_a_run_whose_uploads_lead_elsewhere(run, tmp_path, what):
    from lifelong.errors import LifelongError

    (run / what).parent.mkdir(exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    (run / what).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LifelongError, match="is a link, through which nothing is written or deleted"):
        Service(run, HERE, FREE)


def test_a_report_that_leads_elsewhere(run, tmp_path):
    (tmp_path / "secret").write_text("a secret")
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(tmp_path / "secret")
    with asked(Service(run, HERE, FREE, read_only=True)) as client:
        answer = client.get("/v1/report")
        assert answer.status_code == 400
        assert "a secret" not in answer.text
        (run / "report.html").unlink()
        assert client.get("/v1/report").status_code == 404


def test_the_memory_stays_bounded(port):
    """Many large and broken bodies in a row leave nothing behind."""
    body = bytes(190_000)
    memory = None
    for number in range(60):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/v1/predict", body, {"content-type": "image/png"})
        assert connection.getresponse().status == 200
        connection.close()
        if number == 20:
            memory = resident_bytes()
    assert memory is not None
    assert resident_bytes() - memory < 20e6
