"""What the tests of the server share: a served run, images to send, and a server that really listens."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from lifelong.serving.application import Service, application
from lifelong.serving.entrance import Entrance
from lifelong.serving.limits import Limits
from lifelong.serving.server import configured
from lifelong.settings.run import Environment

HERE = Environment(device="cpu", threads=1, save_every=0.1)
FREE = Limits(rate=0.0)
BASE = "http://127.0.0.1:8000"
TOKEN = "a-token-that-nobody-guesses"


def picture(shade: int, seed: int = 0, size: int = 8) -> bytes:
    """A PNG of noise around a shade of grey."""
    noise = np.random.default_rng([shade, seed]).integers(max(shade - 40, 0), min(shade + 40, 255) + 1, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def shades(count: int) -> dict[str, list[bytes]]:
    """Images of two classes that no run of digits knows."""
    return {"bright": [picture(215, seed) for seed in range(count)], "dark": [picture(60, seed) for seed in range(count)]}


def parts(images: list[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Images as parts of a form."""
    return [("image", ("image", content, "image/png")) for content in images]


@contextmanager
def asked(service: Service, entrance: Entrance | None = None, **how: Any) -> Iterator[TestClient]:
    """A client of a service, which is closed at the end."""
    app = application(service, entrance or Entrance("127.0.0.1", None))
    with TestClient(app, base_url=BASE, raise_server_exceptions=False, follow_redirects=False, **how) as client:
        yield client


@contextmanager
def listening(service: Service, entrance: Entrance | None = None) -> Iterator[int]:
    """A service behind a real socket; gives its port."""
    config = configured(application(service, entrance or Entrance("127.0.0.1", None)), service.limits)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as opened:
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        try:
            until = time.monotonic() + 30
            while not server.started and time.monotonic() < until:
                time.sleep(0.01)
            assert server.started
            yield opened.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def draft_of(client: TestClient, name: str, images: dict[str, list[bytes]]) -> str:
    """Put a task together; gives the draft's id."""
    draft = client.post("/v1/drafts", json={"name": name}).json()["id"]
    for label, some in images.items():
        for first in range(0, len(some), 50):
            told = client.post(f"/v1/drafts/{draft}/images", data={"class": label}, files=parts(some[first : first + 50]))
            assert told.status_code == 200, told.text
    return draft


def until_quiet(client: TestClient, seconds: float = 300) -> dict[str, Any]:
    """Wait until nothing is being learned; gives what became of the last task."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        told = client.get("/v1/learning").json()
        if told["learning"] is None:
            return told["last"]
        time.sleep(0.05)
    raise AssertionError(f"still learning after {seconds} s: {told}")


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but locks and uploads, by its name."""
    files = (file for file in sorted(run.rglob("*")) if file.is_file() and "uploads" not in file.parts and ".lock" not in file.name)
    return {str(file.relative_to(run)): file.read_bytes() for file in files}
