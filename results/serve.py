"""How fast a served run answers: alone, under load, and while it learns one more task.

    python results/serve.py results/serve.csv RUN [--images FOLDER]

Starts `lifelong serve` on a copy of the run and asks it over HTTP, as clients do. Images are those of FOLDER, or noise of the run's size.
The task that is learned meanwhile has two classes of 60 images of noise. Processor seconds are those of the server, per request. `load` is
how many processes wanted the machine in the last five minutes, the eight clients and the learning one among them.
"""

import argparse
import csv
import datetime
import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles

import numpy as np
import torch
from PIL import Image

from lifelong.experiment.machine import machine_name
from lifelong.experiment.summaries import read_summary
from lifelong.reproduction.commit import commit

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = 8
REQUESTS = 1000
COLUMNS = ("run", "quantity", "value", "unit", "requests", "clients", "detail", "load", "command", "commit", "machine", "torch", "date")


def noise(shade: int, seed: int, size: int) -> bytes:
    """Return a PNG of noise around a shade of grey."""
    pixels = np.random.default_rng([shade, seed]).integers(max(shade - 40, 0), min(shade + 40, 255) + 1, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Client:
    """A client with a connection of its own."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> dict:
        """Send a request and return its answer, which must not be an error."""
        self._connection.request(method, path, body, {"content-type": kind})
        answer = self._connection.getresponse()
        told = json.loads(answer.read() or b"{}")
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {told}")
        return told

    def predict(self, image: bytes) -> float:
        """Return the seconds of a prediction."""
        began = time.perf_counter()
        self.ask("POST", "/v1/predict", image, "image/png")
        return time.perf_counter() - began

    def teach(self, name: str, count: int) -> None:
        """Upload a task of noise, and let it be learned."""
        draft = self.ask("POST", "/v1/drafts", json.dumps({"name": name}).encode())["id"]
        for label, shade in (("bright", 215), ("dark", 60)):
            body = f'--x\r\nContent-Disposition: form-data; name="class"\r\n\r\n{label}\r\n'.encode()
            for seed in range(count):
                body += b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + noise(shade, seed, 32) + b"\r\n"
            self.ask("POST", f"/v1/drafts/{draft}/images", body + b"--x--\r\n", "multipart/form-data; boundary=x")
        self.ask("POST", f"/v1/drafts/{draft}/learn")

    def learning(self) -> dict:
        """Return what is being learned, and what became of the last task."""
        return self.ask("GET", "/v1/learning")


def memory(process: int) -> float:
    """Return the megabytes that a process has."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1000


def processor_seconds(process: int) -> float:
    """Return the processor seconds that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def under_load(port: int, images: list[bytes], going: threading.Event | None = None) -> tuple[int, float]:
    """Ask from all clients at once; returns the requests and the seconds that they took.

    Args:
        port: of the server.
        images: to ask about, in turn.
        going: ask as long as it is not set; None: `REQUESTS` times.
    """

    def one(number: int) -> int:
        client, done = Client(port), 0
        while (done < REQUESTS // CLIENTS) if going is None else not going.is_set():
            client.predict(images[(number + done) % len(images)])
            done += 1
        return done

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        done = sum(pool.map(one, range(CLIENTS)))
    return done, time.perf_counter() - began


Row = tuple[str, float, str, int, int, str]
"""Quantity, value, unit, requests, clients and detail."""


def measured(run: Path, images: list[bytes]) -> list[Row]:
    """Serve a run, and measure."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "lifelong", "serve", str(run), "--port", "0", "--rate", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        rows = _measured(server, began, images)
    finally:
        server.terminate()
        code = server.wait(60)
    if code:
        raise SystemExit(f"the server ended with code {code}")
    return rows


def _measured(server: "subprocess.Popen[str]", began: float, images: list[bytes]) -> list[Row]:
    assert server.stderr is not None
    line = server.stderr.readline()
    found = re.search(r":(\d+)/$", line.strip())
    if found is None:
        raise SystemExit(line + server.stderr.read())
    threading.Thread(target=server.stderr.read, daemon=True).start()
    port = int(found[1])
    client = Client(port)
    client.ask("GET", "/v1/health")
    rows: list[Row] = [("start", time.perf_counter() - began, "s", 1, 1, f"{processor_seconds(server.pid):.1f} processor seconds")]
    rows.append(("memory after start", memory(server.pid), "MB", 0, 0, ""))

    before = processor_seconds(server.pid)
    seconds = sorted(client.predict(images[number % len(images)]) for number in range(REQUESTS))
    cost = (processor_seconds(server.pid) - before) / REQUESTS
    rows += _latency("one image", seconds, f"{1000 * cost:.2f} processor ms a request")

    before = processor_seconds(server.pid)
    done, took = under_load(port, images)
    cost = (processor_seconds(server.pid) - before) / done
    rows.append(("throughput", done / took, "requests/s", done, CLIENTS, f"{1000 * cost:.2f} processor ms a request"))
    rows.append(("memory after load", memory(server.pid), "MB", done, CLIENTS, ""))

    over, alone = threading.Event(), []

    def watch() -> None:
        watcher = Client(port)
        while watcher.learning()["learning"] is not None:
            alone.append(watcher.predict(images[len(alone) % len(images)]))
            time.sleep(0.02)
        over.set()

    Client(port).teach("noise", 60)
    thread = threading.Thread(target=watch)
    thread.start()
    done, took = under_load(port, images, over)
    thread.join()
    rows.append(("throughput while a task is learned", done / took, "requests/s", done, CLIENTS, f"{took:.0f} s"))
    rows.append(("memory after learning", memory(server.pid), "MB", done, CLIENTS, ""))

    client = Client(port)
    client.teach("more noise", 59)
    quiet = []
    began = time.perf_counter()
    while client.learning()["learning"] is not None:
        quiet.append(client.predict(images[len(quiet) % len(images)]))
    rows += _latency("one image while a task is learned", sorted(quiet), f"{time.perf_counter() - began:.0f} s to learn")
    last = client.learning()["last"]
    if last["outcome"] != "learned":
        raise SystemExit(str(last))
    return rows


def _latency(what: str, seconds: list[float], detail: str) -> list[Row]:
    cuts = quantiles(seconds, n=100)
    return [(f"{what}, p{share}", 1000 * cuts[share - 1], "ms", len(seconds), 1, detail) for share in (50, 95)]


def main() -> None:
    """Measure, and write a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path, help="folder of PNG files")
    given = parser.parse_args()
    summary = read_summary(given.run)
    size = summary.tasks[-1].side
    images = [noise(127, seed, size) for seed in range(20)]
    if given.images is not None:
        images = [file.read_bytes() for file in sorted(given.images.glob("*.png"))]
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(shutil.copytree(given.run, Path(folder) / "run"), images)
    command = f"python results/serve.py {given.out} RUN" + (" --images FOLDER" if given.images else "")
    known = (command, commit(ROOT), machine_name(torch.device("cpu")), torch.__version__, datetime.date.today().isoformat())
    name = f"{summary.stream}, {summary.method}, {len(summary.tasks)} tasks, {size} pixels"
    fresh, load = not given.out.exists(), f"{os.getloadavg()[1]:.1f}"
    with given.out.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        for quantity, value, *more in rows:
            writer.writerow([name, quantity, f"{value:.4g}", *more, load, *known])
            print(f"{quantity}: {value:.4g} {' '.join(map(str, more))}")


if __name__ == "__main__":
    main()
