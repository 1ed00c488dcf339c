"""The engine for Ray: token authentication, shares of nodes, and how tasks end, with a stand-in for Ray, and with Ray itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lifelong
from lifelong.errors import LifelongError
from lifelong.experiment import on_ray
from lifelong.experiment.observer import Observer
from lifelong.experiment.on_ray import Share, share
from lifelong.experiment.sweep import SweepError, check_sweep, sweep
from tests.experiment.small_sweeps import HERE, small
from tests.sweeps.made import FLAGS, ROOT, as_file, command, events, journals, numbers, spec

NODE = {"CPU": 8.0, "GPU": 2.0}
TOKEN = "only-for-this-test-" + "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("workers", "threads", "device", "nodes", "expected"),
    [
        (4, 0, "cpu", [NODE, NODE], Share(4, 0.0)),
        (3, 0, "cpu", [NODE, NODE], Share(5, 0.0)),
        (1, 0, "cpu", [NODE, NODE], Share(8, 0.0)),  # no node has 16
        (99, 0, "cpu", [NODE], Share(1, 0.0)),
        (4, 2, "cuda", [NODE, NODE], Share(2, 1.0)),
        (5, 2, "cuda", [NODE, NODE], Share(2, 0.5)),
        (9, 2, "auto", [NODE, NODE], Share(2, 1 / 3)),
        (2, 99, "auto", [{"CPU": 8.0}], Share(8, 0.0)),
    ],
)
def test_shares(workers, threads, device, nodes, expected):
    assert share(workers, threads, device, nodes) == expected


def test_devices_that_a_cluster_does_not_have():
    with pytest.raises(LifelongError, match="this Ray cluster has no GPU"):
        share(1, 0, "cuda", [{"CPU": 8.0}])
    with pytest.raises(LifelongError, match="--device cuda:1: Ray chooses the card of each run; use --device cuda"):
        share(1, 0, "cuda:1", [NODE])


class RayError(Exception):
    """Stands in for the errors of Ray."""


class InError(RayError):
    """Stands in for the error of a task."""


class RefusedError(RayError):
    """Stands in for the error about a token."""


class StandIn:
    """Ray, as far as the engine calls it: a task is carried out when it is waited for, or its worker dies."""

    __version__ = "2.60.0"
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=InError, AuthenticationError=RefusedError)

    def __init__(self) -> None:
        self.dies: dict[str, RayError] = {}
        self.refuses: Exception | None = None
        self.given: list[dict[str, Any]] = []
        self.seen: list[tuple[str | None, str | None]] = []
        self.up = False

    def is_initialized(self) -> bool:
        return self.up

    def init(self, **options: Any) -> None:
        self.given.append(options)
        self.seen.append((os.environ.get("RAY_AUTH_MODE"), os.environ.get("RAY_AUTH_TOKEN")))
        if self.refuses is not None:
            raise self.refuses
        self.up = True

    def shutdown(self) -> None:
        self.up = False

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]

    def remote(self, **options: Any) -> Any:
        self.given.append(options)
        return lambda function: SimpleNamespace(remote=lambda *given: _Reference(function, given))

    def wait(self, references: list["_Reference"], timeout: float) -> tuple[list["_Reference"], list["_Reference"]]:
        return references[:1], references[1:]

    def get(self, reference: "_Reference") -> Any:
        plain = reference.given[0]
        if plain["out"] in self.dies:
            raise self.dies[plain["out"]]
        return reference.function(*reference.given)


class _Reference:
    def __init__(self, function: Any, given: tuple[Any, ...]) -> None:
        self.function, self.given = function, given


@pytest.fixture
def ray(monkeypatch, tmp_path) -> StandIn:
    made = StandIn()
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return made


def carried_out(tmp_path: Path, seeds: int = 2, engine: str = "ray") -> dict[int, Any]:
    return dict(sweep([(small(seed), tmp_path / str(seed)) for seed in range(seeds)], HERE, 2, lambda position: Observer(), engine))


def test_the_contract_of_engines(ray):
    """And the token of the sweep's own cluster is known to Ray alone: nothing is left in the environment or on disk."""
    before = dict(os.environ)
    lifelong.check_engine("ray")
    assert os.environ == before
    ((mode, token),) = ray.seen
    assert mode == "token"
    assert len(token or "") == 64
    assert not (Path.home() / ".ray").exists()
    assert ray.given[0]["address"] == "local"
    assert (ray.given[1]["num_cpus"], ray.given[1]["num_gpus"], ray.given[1]["max_retries"]) == (1, 0, 3)
    assert not ray.up


def test_tasks_that_ray_gives_up(ray, tmp_path):
    ray.dies = {
        str(tmp_path / "0"): RayError("the worker died\nand more"),
        str(tmp_path / "1"): InError("Traceback\n...\nImportError: no lifelong"),
    }
    with pytest.raises(SweepError) as caught:
        carried_out(tmp_path, 3)
    assert "2 of 3 runs failed" in str(caught.value)
    assert f"Ray gave up the run of {tmp_path / '0'} (RayError: the worker died)" in str(caught.value)
    assert "(InError: ImportError: no lifelong)" in str(caught.value)
    assert caught.value.summaries.keys() == {2}
    assert not ray.up


def test_no_token_and_a_wrong_one(ray, tmp_path, monkeypatch):
    """One line each, which does not hold the token; nothing is sent to a cluster without one."""

    def refused(engine: str = "ray:10.0.0.1:6379") -> str:
        with pytest.raises(LifelongError) as caught:
            carried_out(tmp_path, engine=engine)
        assert "\n" not in str(caught.value)
        assert TOKEN not in str(caught.value)
        return str(caught.value)

    assert "token authentication only, and RAY_AUTH_MODE is not set; set RAY_AUTH_MODE=token" in refused()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for engine in ("ray", "ray:auto"):
        assert "RAY_AUTH_MODE is 'disabled'; set RAY_AUTH_MODE=token" in refused(engine)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert refused().startswith("no token for the Ray cluster at 10.0.0.1:6379: put it into ~/.ray/auth_token")
    file = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert refused("ray") == f"no token in the file {file} that RAY_AUTH_TOKEN_PATH names: there is no such file"
    file.write_text("\n")
    assert "it is empty" in refused()
    assert not ray.given
    file.write_text(TOKEN)
    ray.refuses = RefusedError(f"wrong token {TOKEN}")
    assert refused().startswith("the Ray cluster at 10.0.0.1:6379 does not accept the token; give the cluster's own")
    ray.refuses = ConnectionError("Failed to connect")
    ray.refuses.__cause__ = RuntimeError(f"Last error: Traceback\nray.exceptions.AuthenticationError: not {TOKEN}")
    assert "does not accept the token" in refused()
    ray.refuses = ConnectionError("Could not find a node\nat all")
    assert "cannot join the Ray cluster at 10.0.0.1:6379 (Could not find a node); start it" in refused()
    ray.refuses = None
    assert carried_out(tmp_path, engine="ray:10.0.0.1:6379").keys() == {0, 1}
    assert ray.given[-2]["address"] == "10.0.0.1:6379"
    assert ray.seen[-1] == ("token", None)  # Ray itself reads the file


def test_a_node_without_token_authentication(ray, tmp_path, monkeypatch):
    """Nothing is run there, even though the cluster would do it."""
    plain = lifelong.RunJob(small(0), tmp_path / "0", HERE).plain()
    told = on_ray.carry_out(plain, None, None)
    assert told["failure"].startswith("the Ray cluster has no token authentication on ")
    assert not (tmp_path / "0").exists()


def test_versions_and_addresses(ray, monkeypatch):
    monkeypatch.setattr(ray, "__version__", "2.51.2", raising=False)
    with pytest.raises(LifelongError, match=r"ray 2\.51\.2 has no token authentication; install 2\.52 or later"):
        lifelong.check_engine("ray")
    with pytest.raises(LifelongError, match="give HOST:PORT of the cluster's head node, or auto"):
        check_sweep(1, "ray:ray://head:10001")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LifelongError, match=r"--engine ray needs the package ray: pip install 'lifelong\[ray\]'"):
        lifelong.check_engine("ray")


def test_an_own_cluster_of_the_program_is_used(ray, tmp_path):
    ray.up = True
    assert carried_out(tmp_path).keys() == {0, 1}
    assert ray.up
    assert not any("address" in options for options in ray.given)


with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the package ray is not installed: pip install 'lifelong[ray]'")


@pytest.fixture
def session() -> Iterator[Path]:
    """Where Ray keeps its logs; short, because names of sockets have at most 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@with_ray
def test_ray_itself_keeps_the_contract_of_engines(session):
    """On a cluster of two workers, in a process of its own: Ray leaves threads behind."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(session)}
    line = [sys.executable, "-c", "import lifelong; lifelong.check_engine('ray')"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def until(true: Any, process: subprocess.Popen[str], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def in_command_lines(text: str) -> bool:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if text.encode() in file.read_bytes():
                return True
    return False


def in_files(text: str, folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


@pytest.mark.slow
@with_ray
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="this system has no /proc")
def test_24_runs_on_two_workers_one_of_which_is_killed(tmp_path, session):
    """All finish, none twice, with the numbers of the local engine to the bit; the token is on no command line and in no file."""
    file = as_file(spec(("finetune", "independent", "ewc"), 8, epochs=6), tmp_path / "mine.toml")
    there, here = tmp_path / "ray", tmp_path / "local"
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_TMPDIR": str(session)}
    process = command(file, "--out", there, *FLAGS, "--engine", "ray", "--workers", "2", **variables)
    noted = journals(file, there)
    assert len(noted) == 24

    def under_way() -> list[str]:
        return [name for name, journal in noted.items() if journal.read().what == "task" and journal.read().done == 1]

    # In the middle: some are finished, and one has learned its first task.
    until(lambda: sum("finished" in events(one) for one in noted.values()) >= 5 and under_way(), process)
    killed = under_way()[0]
    os.kill(noted[killed].read().process, signal.SIGKILL)
    assert not in_command_lines(TOKEN)
    out, err = process.communicate(timeout=1500)
    assert process.returncode == 0, (out, err)
    assert TOKEN not in out + err
    assert in_files(TOKEN, tmp_path) == in_files(TOKEN, session) == []
    for name, journal in noted.items():
        found = events(journal)
        assert found.count("finished") == 1, name
        assert found.count("task") == 2, name
        assert found.count("started") == (2 if name == killed and found.count("started") > 1 else 1), name
    assert sum(events(one).count("started") for one in noted.values()) == 25
    lifelong.sweep(file, out=here, device="cpu", threads=1, progress=False)
    assert numbers(file, there) == numbers(file, here)


CLUSTER = """
import os, sys, time
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
@with_ray
def test_a_running_cluster_and_its_token(tmp_path, session):
    """It is joined with its token; a wrong one, and none, are one line each, after which nothing was run."""
    file, out = as_file(spec(("finetune",), 1), tmp_path / "mine.toml"), tmp_path / "out"
    # The nodes find this library, which is not installed in every environment.
    variables = {"RAY_AUTH_MODE": "token", "RAY_TMPDIR": str(session), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "HOME": str(tmp_path)}
    environment = os.environ | variables | {"RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        assert address.startswith("127.0.0.1:")
        words = (file, "--out", out, *FLAGS, "--engine", f"ray:{address}", "--json")
        for more, line in (
            ({"RAY_AUTH_TOKEN": "another"}, f"the Ray cluster at {address} does not accept the token"),
            ({}, f"no token for the Ray cluster at {address}"),
        ):
            process = command(*words, **variables, **more)
            _, err = process.communicate(timeout=600)
            assert process.returncode == 2
            assert line in err
            assert err.count("\n") == 1
            assert TOKEN not in err
            assert not any(file.name == "summary.json" for file in out.rglob("*"))
        process = command(*words, **variables, RAY_AUTH_TOKEN=TOKEN)
        told, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert json.loads(told)[0]["complete"]
    finally:
        cluster.communicate("", timeout=300)
