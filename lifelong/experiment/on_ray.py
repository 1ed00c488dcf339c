"""The engine for Ray: carries out runs as tasks of Ray Core, on a cluster of this machine or on one that is there already.

    --engine ray                    a cluster on this machine's loopback interface, which ends with the sweep
    --engine ray:ADDRESS            the cluster at HOST:PORT, or "auto": the one that this machine belongs to

All nodes need this library and the folder of the runs under the same path. A worker or a node may die at any time: its task is started
again elsewhere, and the run continues where its folder stands. Ray executes any code that reaches it, so it is only used with token
authentication (https://docs.ray.io/en/latest/ray-security/token-auth.html). This module hands the token on to nobody but Ray itself.
"""

import math
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError, one_line
from lifelong.experiment.job import RunJob, RunOutcome, perform_plain, taken
from lifelong.experiment.observer import Observer
from lifelong.extras import require_extra
from lifelong.opening import MOST_SETTINGS, read_text
from lifelong.settings.device import parse_device
from lifelong.training.malloc import keep_freed_memory

OLDEST = (2, 52)
"""The first version of Ray that knows token authentication."""

RETRIES = 3
"""How often a task is started again whose worker or node has died."""

STARTS = 2
"""How often a cluster of this machine is started: on a busy machine Ray may give up too early."""

PULSE = 1.0
"""Seconds after which the sweep looks again whether a run has ended."""

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Variables of a cluster of this machine: it talks over loopback, as Ray does by itself on macOS and Windows, and reports to nobody."""


def of_address(address: str) -> Callable[[], "OnRay"]:
    """Return what makes the engine for the cluster at an address.

    Raises:
        LifelongError: it is none.
    """
    if "://" in address or not address.strip():
        raise LifelongError(f"--engine ray:{address}: give HOST:PORT of the cluster's head node, or auto, on a machine of the cluster")
    return lambda: OnRay(address)


class OnRay:
    """Carries out jobs as Ray tasks.

    Args:
        address: of a running cluster; None: one is started on this machine, and ended.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def check(self) -> None:
        """Check that Ray is installed and used with token authentication; it is not started yet.

        Raises:
            LifelongError: it is not.
        """
        require_extra("ray", ("ray",), "--engine ray", "or use --engine local")
        _authentication(self.address)

    def run(self, jobs: Sequence[RunJob], workers: int, begin: Callable[[int], Observer]) -> Iterator[tuple[int, RunOutcome]]:
        """See `lifelong.experiment.engine.Engine.run`. An observer is told when its run has finished, not how far it is."""
        self.check()
        with _connected(self.address, workers) as ray:
            task = _task(ray, jobs, workers, joined=self.address is not None)
            waiting = list(enumerate(jobs))
            going: dict[Any, tuple[int, RunJob, Observer]] = {}
            try:
                while waiting or going:
                    while waiting and len(going) < workers:
                        position, job = waiting.pop(0)
                        if (outcome := taken(job)) is not None:
                            yield position, outcome
                        else:
                            going[task(job)] = position, job, begin(position)
                    for done in ray.wait(list(going), timeout=PULSE)[0] if going else []:
                        position, job, observer = going.pop(done)
                        outcome = _outcome(ray, done, job)
                        if outcome.summary is not None:
                            observer.run_finished(outcome.summary)
                        yield position, outcome
            finally:
                for reference in going:
                    ray.cancel(reference, force=True)


def _outcome(ray: Any, reference: Any, job: RunJob) -> RunOutcome:
    """Return the outcome of a task that has ended."""
    try:
        return job.told(ray.get(reference))
    except LifelongError as error:
        return RunOutcome(None, str(error))
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines() or [""]
        # Of an error in the task, the last line of its traceback.
        reason = said[-1] if isinstance(error, ray.exceptions.RayTaskError) else said[0]
        return RunOutcome(None, f"Ray gave up the run of {job.out} ({type(error).__name__}: {reason}); run the same command again")


@dataclass(frozen=True)
class Share:
    """What a task takes of its node.

    Attributes:
        cpus: number of processors.
        gpus: number of GPUs; 1/2 of one where two tasks share it.
    """

    cpus: int
    gpus: float


def share(workers: int, threads: int, device: str, nodes: Sequence[dict[str, float]]) -> Share:
    """Return the share of each of several tasks.

    Args:
        workers: number of tasks at once.
        threads: CPU threads that each was given; 0: an equal part of the processors, at most those of one node.
        device: on which they compute.
        nodes: the resources of each node: "CPU" and "GPU".

    Raises:
        LifelongError: the cluster does not have the device.
    """
    kind, number = parse_device(device)
    if number is not None:
        raise LifelongError(f"--device {device}: Ray chooses the card of each run; use --device {kind}")
    cpus, gpus = ([int(node.get(name, 0)) for node in nodes] for name in ("CPU", "GPU"))
    if kind == "cuda" and not sum(gpus):
        raise LifelongError("--device cuda: this Ray cluster has no GPU; use --device cpu or auto")
    own = threads or sum(cpus) // workers
    on_gpu = kind in ("cuda", "auto") and sum(gpus) > 0
    return Share(max(1, min(own, max(cpus, default=1))), 1 / math.ceil(workers / sum(gpus)) if on_gpu else 0.0)


def _task(ray: Any, jobs: Sequence[RunJob], workers: int, joined: bool) -> Callable[[RunJob], Any]:
    """Return a function that starts the task of a job."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    place = jobs[0].environment
    # A cluster of our own has one "CPU" for each worker, whatever the machine has; its runs share the cores as other parallel runs do.
    part = share(workers, place.threads if joined else 1, place.device, alive)
    remote = ray.remote(num_cpus=part.cpus, num_gpus=part.gpus, max_retries=RETRIES, retry_exceptions=False)(carry_out)
    threads = os.environ.get("OMP_NUM_THREADS")
    return lambda job: remote.remote(job.plain(), threads, part.cpus if joined else None)


def carry_out(plain: dict[str, Any], threads: str | None, cpus: int | None) -> dict[str, Any]:
    """Carry out a job in a worker of Ray.

    Args:
        plain: the job, see `RunJob.plain`.
        threads: the variable OMP_NUM_THREADS of the sweep, which Ray has set to another value here; None: it was not set.
        cpus: processors of this node that the run may use; None: what the job says.
    """
    if os.environ.get(MODE, "").lower() != "token":
        failure = f"the Ray cluster has no token authentication on {socket.gethostname()}; start all its nodes with {MODE}=token"
        return RunOutcome(None, failure).plain()
    _set("OMP_NUM_THREADS", threads)
    keep_freed_memory()
    if cpus is not None:
        at_once = max(1, (os.cpu_count() or 1) // cpus)
        plain = plain | {"environment": plain["environment"] | {"at_once": at_once}}
    return perform_plain(plain)


@contextmanager
def _connected(address: str | None, workers: int) -> Generator[Any]:
    """Connect to a cluster during the block; yields the package.

    Raises:
        LifelongError: Ray is missing or too old, has no token authentication, or cannot be reached.
    """
    handlers = _handlers()
    with _variables(_authentication(address) | (LOCAL if address is None else {})):
        import ray

        _check_version(ray.__version__)
        ours = not ray.is_initialized()
        try:
            if ours:
                _start(ray, address, workers)
            # Ray's own handler of SIGTERM ends the process before the sweep can.
            _restore(handlers)
            yield ray
        finally:
            if ours:
                ray.shutdown()
            _restore(handlers)


def _start(ray: Any, address: str | None, workers: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    here = {"num_cpus": workers, "include_dashboard": False, "_system_config": {"task_oom_retries": RETRIES}}
    for start in range(STARTS):
        try:
            with _without_warnings():
                ray.init(address="local", **here, **quiet) if address is None else ray.init(address=address, **quiet)
            return
        except ray.exceptions.AuthenticationError as error:
            raise LifelongError(_WRONG_TOKEN.format(address or "local")) from error
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError or Exception itself
            ray.shutdown()
            if _about_token(error):
                raise LifelongError(_WRONG_TOKEN.format(address or "local")) from error
            if address is not None:
                raise LifelongError(
                    f"cannot join the Ray cluster at {address} ({_said(error)}); start it, with a node on this machine, or give its address"
                ) from error
            if start == STARTS - 1:
                raise LifelongError(f"Ray does not start here ({_said(error)}); try again, or use --engine local") from error


_WRONG_TOKEN = (
    f"the Ray cluster at {{}} does not accept the token; give the cluster's own in {TOKEN}, in the file that {TOKEN_FILE} names,"
    + (" or in ~/.ray/auth_token")
)


@contextmanager
def _without_warnings() -> Generator[None]:
    """Drop what is written to stderr during the block: Ray's C++ part warns each second while it cannot connect, whatever is set."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _about_token(error: BaseException | None) -> bool:
    """Tell whether an error, or one that led to it, is that a token was not accepted; Ray wraps it twice."""
    while error is not None:
        if "AuthenticationError" in str(error) or "InvalidAuthToken" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _said(error: Exception) -> str:
    """Return the first line of what Ray said."""
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[0])


def _check_version(version: str) -> None:
    parts = version.split(".")[:2]
    if all(part.isdigit() for part in parts) and tuple(map(int, parts)) < OLDEST:
        raise LifelongError(f"ray {version} has no token authentication; install 2.52 or later: pip install 'lifelong[ray]'")


def _authentication(address: str | None) -> dict[str, str]:
    """Return the variables by which Ray uses token authentication, those that are not set yet.

    Raises:
        LifelongError: token authentication is turned off, or there is no token for a running cluster.
    """
    mode = os.environ.get(MODE)
    if (mode or "").lower() != "token" and (mode is not None or address is not None):
        now = f"{MODE} is {'not set' if mode is None else one_line(mode)!r}".replace("'not set'", "not set")
        raise LifelongError(f"--engine ray runs with token authentication only, and {now}; set {MODE}=token, here and on all nodes")
    there = _has_token()
    if address is not None and not there:
        raise LifelongError(
            f"no token for the Ray cluster at {address}: put it into ~/.ray/auth_token, or into a file that {TOKEN_FILE} names"
        )
    # A cluster of this sweep alone gets a token of its own, which is never written down.
    return {MODE: "token"} | ({} if there else {TOKEN: _own_token()})


def _has_token() -> bool:
    """Tell whether Ray will find a token.

    Raises:
        LifelongError: it is to be read from a file that cannot be read or is empty; Ray would end the process.
    """
    if os.environ.get(TOKEN):
        return True
    named = os.environ.get(TOKEN_FILE)
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        if read_text(file, MOST_SETTINGS).strip():
            return True
        reason = "it is empty"
    except FileNotFoundError:
        reason = "there is no such file"
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
    if named:
        raise LifelongError(f"no token in the file {file} that {TOKEN_FILE} names: {reason}")
    return False


@cache
def _own_token() -> str:
    """Return a random token, the same for the whole process: Ray remembers the first one that it reads."""
    return secrets.token_hex(32)


@contextmanager
def _variables(values: dict[str, str]) -> Generator[None]:
    """Set environment variables during the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _handlers() -> dict[int, Any]:
    """Return what the process does on signals; nothing outside of the main thread, which alone may change it."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
