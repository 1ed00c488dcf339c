"""Who may ask the server for something: hosts, origins and the token.

A server on this machine can be reached by every web page that is open in a browser here. The page of a stranger may send it requests, and
by DNS rebinding even read the answers. So a request has to name this server as its host, and where a browser says which page sent it, that
page has to be the server's own.
"""

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from lifelong.errors import LifelongError
from lifelong.opening import read_text

TOKEN = "LIFELONG_SERVE_TOKEN"
"""The environment variable that holds the token."""

SHORTEST = 16
"""Characters that a token has at least."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

COOKIE = "lifelong-session"
SESSION = 12 * 3600
"""Seconds for which a person stays logged in."""

PUBLIC = ("/login", "/v1/health", "/v1/ready")
"""What is answered without a token, besides the files of the page."""


def read_token(file: Path | None) -> str | None:
    """Read the token from a file, or else from the environment; None if there is none.

    Raises:
        LifelongError: the file cannot be read, or the token is too short or not plain text.
    """
    if file is not None:
        try:
            token, where = read_text(file, 4096).strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise LifelongError(f"cannot read the token in {file}: {getattr(error, 'strerror', None) or 'not text'}") from error
    elif TOKEN in os.environ:
        token, where = os.environ[TOKEN].strip(), f"${TOKEN}"
    else:
        return None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise LifelongError(
            f"the token in {where} is not {SHORTEST} or more plain characters; make one: python -c 'import secrets;"
            " print(secrets.token_urlsafe())'"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Entrance:
    """Decides whether a request may come in.

    Args:
        host: the address at which the server listens.
        token: what a client has to know; None: nothing.
        hosts: further names under which the server is reached.
        clock: gives seconds; for tests.

    Raises:
        LifelongError: other machines could reach a server without a token.
    """

    MOST = 1000
    """Persons who are logged in at a time; the first of more is logged out."""

    def __init__(self, host: str, token: str | None, hosts: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        if token is None and not is_loopback(host):
            raise LifelongError(
                f"--host {host} lets other machines in, which needs a token: set {TOKEN}, or give --token-file FILE"
                " (make one: python -c 'import secrets; print(secrets.token_urlsafe())')"
            )
        self._any_address = not is_loopback(host) and host in ("0.0.0.0", "::")
        self._hosts = {name.lower().rstrip(".") for name in (*LOOPBACK, host, *hosts)}
        self._digest = None if token is None else _digest(token)
        self._sessions: OrderedDict[bytes, float] = OrderedDict()
        self._clock = clock

    @property
    def needs_token(self) -> bool:
        """Whether a client has to know a token."""
        return self._digest is not None

    def stranger(self, headers: Mapping[str, str], method: str, path: str) -> str:
        """Return why a request may come from a foreign page, in one line; empty if it does not.

        Args:
            headers: by their names in small letters; of a repeated one all values, separated by commas.
            method, path: of the request.
        """
        host = headers.get("host", "")
        if not self._ours(host):
            return f"this server is not {host[:80]!r}; ask it by its own address, or start it with --allow-host NAME"
        origin = headers.get("origin")
        if origin is not None and not _same(origin, host):
            return f"a page of {origin[:80]!r} may not use this server; open the server's own page"
        # A browser says of each request which page it is for; following a link to the page itself is harmless.
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none") and not (method == "GET" and path in ("/", "/login")):
            return "another page may not use this server; open the server's own page"
        return ""

    def knows(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether a request comes with the token, or from a person who has logged in with it."""
        if self._digest is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.fits(given.strip()):
            return True
        until = self._sessions.get(_digest(cookies.get(COOKIE, "")))
        return until is not None and self._clock() < until

    def fits(self, token: str) -> bool:
        """Whether this is the token; takes equally long for every wrong one."""
        return self._digest is not None and hmac.compare_digest(_digest(token), self._digest)

    def admit(self) -> str:
        """Log a person in; returns the value of her cookie."""
        value = secrets.token_urlsafe(32)
        self._sessions[_digest(value)] = self._clock() + SESSION
        if len(self._sessions) > self.MOST:
            self._sessions.popitem(last=False)
        return value

    def dismiss(self, value: str) -> None:
        """Log a person out."""
        self._sessions.pop(_digest(value), None)

    def _ours(self, host: str) -> bool:
        """Whether a Host header names this server; its port may be another, as through a tunnel."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if not name or "," in host or "@" in host or "/" in host:
            return False
        return name.rstrip(".") in self._hosts or (self._any_address and _is_address(name))


def is_public(path: str) -> bool:
    """Whether a path is answered without a token."""
    return path in PUBLIC or path.startswith("/page/")


def _is_address(name: str) -> bool:
    """Whether a host is a bare address, to which no name can be bound again."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(origin: str, host: str) -> bool:
    """Whether an Origin is that of the Host; the scheme may be another, as behind a proxy that speaks TLS."""
    try:
        page, server = urlsplit(origin), urlsplit(f"{urlsplit(origin).scheme}://{host}")
        usual = {"http": 80, "https": 443}.get(page.scheme)
        return usual is not None and (page.hostname, page.port or usual) == (server.hostname, server.port or usual)
    except ValueError:
        return False


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
