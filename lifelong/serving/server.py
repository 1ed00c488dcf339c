"""Listens, and answers until it is told to stop."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lifelong.errors import LifelongError
from lifelong.serving.application import Service, application
from lifelong.serving.entrance import Entrance
from lifelong.serving.guard import Guard
from lifelong.serving.limits import Limits
from lifelong.settings.run import Environment

PATIENCE = 10
"""Seconds that requests get to end when the server is told to stop."""


def serve(
    run: Path,
    place: Environment,
    entrance: Entrance,
    host: str,
    port: int,
    limits: Limits,
    read_only: bool,
    tell: Callable[[str], None],
) -> None:
    """Serve a run until SIGTERM or Ctrl-C.

    Args:
        run: the run directory.
        place: where data, weights and the device are.
        entrance: who may come in.
        host, port: where to listen; port 0: any that is free.
        limits: how much may be asked.
        read_only: whether nothing can be learned.
        tell: is given what to tell the person who started the server, line by line.

    Raises:
        LifelongError: the run cannot be opened, or the address cannot be used.
    """
    # First the address, which takes no time; nobody is answered before the run is open.
    listening = _listen(host, port, limits.connections)
    try:
        with _logged_by(tell):
            service = Service(run, place, limits, read_only)
            config = configured(application(service, entrance), limits)
            name = f"[{host}]" if ":" in host else host
            tell(f"serving {run} ({len(service.model.current.predictor.tasks)} tasks) at http://{name}:{listening.getsockname()[1]}/")
            tell("stop with Ctrl-C")
            # uvicorn ends everything at a Ctrl-C, and passes on what it was told.
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run([listening])
        tell("stopped")
    finally:
        listening.close()


@contextmanager
def _logged_by(tell: Callable[[str], None]) -> Generator[None]:
    """Tell what this library logs during a block."""
    log, handler = logging.getLogger("lifelong"), _Telling(tell)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


def configured(app: Guard, limits: Limits) -> uvicorn.Config:
    """Return how uvicorn serves an application: HTTP/1.1 alone, with bounded patience, and no word about itself."""
    return uvicorn.Config(
        app,
        http=_patient(limits.header_seconds),
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=16 * 2**10,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=PATIENCE,
    )


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    """Open the address.

    Raises:
        LifelongError: it cannot be used.
    """
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(backlog)
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        if listening is not None:
            listening.close()
        reason = getattr(error, "strerror", None) or error
        raise LifelongError(f"cannot listen at {host}, port {port}: {reason}; give another --host or --port") from error


def _patient(seconds: float) -> type[H11Protocol]:
    """Return the protocol that closes a connection whose first request does not come."""

    class Patient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._due = self.loop.call_later(seconds, self._given_up)

        def data_received(self, data: bytes) -> None:
            # uvicorn stops its clock with the first byte of the next request, of which the rest need never come.
            waits = self.timeout_keep_alive_task is not None
            super().data_received(data)
            if waits and self._idle():
                self._due.cancel()
                self._due = self.loop.call_later(seconds, self._given_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._due.cancel()
            super().connection_lost(exc)

        def _idle(self) -> bool:
            """Whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def _given_up(self) -> None:
            if self._idle() and self.timeout_keep_alive_task is None:
                self.transport.abort()

    return Patient


class _Telling(logging.Handler):
    """Passes what the library logs on to the person who started the server."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> Any:
        """See `logging.Handler.emit`."""
        self._tell(self.format(record))
