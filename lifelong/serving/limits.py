"""How much one client, and all of them together, may ask of the server."""

import asyncio
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes:
        request_bytes: of the body of a request.
        small_bytes: of a body that holds no images.
        images: in a request.
        pixels: of an image.
        request_pixels: of all images of a request.
        draft_images, draft_bytes: of a task that is being put together.
        drafts: tasks that are being put together at a time.
        name: letters of the name of a task or a class.
        header_seconds, body_seconds: in which a request's head, and its body, have to be here.
        idle_seconds: for which a connection stays open after a request.
        rate: requests a second from one address; 0: any number.
        burst: requests that an address may send at once.
        logins: tries of the token a minute from one address.
        connections: open at a time.
        memory_bytes: of the bodies of requests for predictions that are in memory at a time, and of uploads as many; others wait.
        waiting: requests for predictions, those that wait included; more are turned away.
    """

    request_bytes: int = 32 * 2**20
    small_bytes: int = 64 * 2**10
    images: int = 64
    pixels: int = 40_000_000
    request_pixels: int = 250_000_000
    draft_images: int = 20_000
    draft_bytes: int = 2 * 2**30
    drafts: int = 8
    name: int = 120
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: int = 15
    rate: float = 100.0
    burst: int = 200
    logins: int = 10
    connections: int = 256
    memory_bytes: int = 256 * 2**20
    waiting: int = 64


class Room:
    """Bytes of memory that requests take for their bodies; those for which there is none wait, in the order in which they came.

    Each takes as much as it says that it will send, so that many that send little, and slowly, keep nobody waiting.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, wanted: int) -> AsyncGenerator[None]:
        """Hold so many bytes during a block."""
        wanted = min(wanted, self._size)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        self._let_in()
        try:
            await turn
            yield
        finally:
            self._free += 0 if turn.cancelled() else wanted
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._waiting[0][0] <= self._free or self._waiting[0][1].cancelled()):
            wanted, turn = self._waiting.popleft()
            if not turn.cancelled():  # that client is gone
                self._free -= wanted
                turn.set_result(None)


class Rate:
    """Requests that each address may send: a bucket that fills at a steady rate, and from which each request takes one.

    Args:
        rate: requests a second; 0: any number.
        burst: requests that a full bucket holds.
        clock: gives seconds; for tests.
    """

    MOST = 4096
    """Addresses that are remembered; the one that has been silent for longest is forgotten first."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Take one request of an address; returns 0 if it may pass, else the seconds after which one may."""
        if not self._rate:
            return 0.0
        now, who = self._clock(), _who(address)
        left, then = self._buckets.pop(who, (self._burst, now))
        left = min(left + (now - then) * self._rate, self._burst)
        passes = left >= 1
        self._buckets[who] = (left - 1 if passes else left, now)
        if len(self._buckets) > self.MOST:
            self._buckets.popitem(last=False)
        return 0.0 if passes else (1 - left) / self._rate


def _who(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the network of an IPv6 address, of which one machine has any number."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((known, 64), strict=False)) if known.version == 6 else str(known)
