"""What every request passes: rate, host, origin, token, size and time; and what every answer carries."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from lifelong.serving.entrance import Entrance, is_public
from lifelong.serving.limits import Limits, Rate
from lifelong.serving.measuring import Measured

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not "no-referrer": a browser would then say of the form that logs in that it is of no page at all.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""What every answer carries, unless it says otherwise itself."""


class Guard:
    """Lets a request through to the application, or answers it.

    Args:
        app: the application.
        entrance: who may come in.
        limits: how much may be asked.
        measured: counts the requests.
    """

    def __init__(self, app: App, entrance: Entrance, limits: Limits, measured: Measured) -> None:
        self._app, self._entrance, self._limits, self._measured = app, entrance, limits, measured
        self._rate = Rate(limits.rate, limits.burst)
        self._logins = Rate(limits.logins / 60, limits.logins)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _completed(message["headers"], status, scope["method"])
            await send(message)

        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        try:
            if refusal is not None:
                await refusal(scope, receive, answer)
            else:
                await self._app(scope, self._bounded(receive, headers, self._most(scope["path"])), answer)
        finally:
            # The name of what answered, never the path: a stranger could send any number of these.
            route = getattr(scope.get("endpoint"), "__name__", "none") if refusal is None else "refused"
            self._measured.request(route, status, time.monotonic() - began)

    def _refusal(self, scope: MutableMapping[str, Any], headers: Mapping[str, str]) -> Response | None:
        """Return the answer to a request that may not pass."""
        path, method = scope["path"], scope["method"]
        address = (scope.get("client") or ("",))[0]
        wait = self._rate.wait(address)
        if path == "/login" and method == "POST":
            wait = max(wait, self._logins.wait(address))
        if wait:
            late = JSONResponse({"error": "too many requests; wait a moment"}, 429)
            late.headers["retry-after"] = str(int(wait) + 1)
            return late
        stranger = self._entrance.stranger(headers, method, path)
        if stranger:
            return JSONResponse({"error": stranger}, 403)
        if not is_public(path) and not self._entrance.knows(headers, _cookies(headers)):
            if path == "/" and method == "GET":
                return RedirectResponse("/login", 303)
            unknown = JSONResponse({"error": "no token, or a wrong one; send the header Authorization: Bearer TOKEN"}, 401)
            unknown.headers["www-authenticate"] = "Bearer"
            return unknown
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most(path):
            return JSONResponse({"error": _too_large(self._most(path))}, 413)
        return None

    def _most(self, path: str) -> int:
        """Return the bytes that a body may have: without a token, no more than a token takes."""
        return self._limits.small_bytes if is_public(path) else self._limits.request_bytes

    def _bounded(self, receive: Receive, headers: Mapping[str, str], most: int) -> Receive:
        """Return a `receive` that gives up on a body that is too large, or too slow."""
        until = time.monotonic() + self._limits.body_seconds
        taken, whole = 0, "content-length" not in headers and "transfer-encoding" not in headers

        async def bounded() -> Message:
            nonlocal taken, whole
            if whole:
                # All has come; what is waited for now is the client's leaving.
                return await receive()
            try:
                async with asyncio.timeout(max(until - time.monotonic(), 0)):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body of the request came too slowly; send less at a time") from None
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > most:
                raise HTTPException(413, _too_large(most))
            return message

        return bounded


def _too_large(most: int) -> str:
    size = f"{most // 2**20} MB" if most >= 2**20 else f"{most // 2**10} kB"
    return f"more than {size} in one request; send fewer images at a time"


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return a request's headers by name; the values of a repeated one are joined."""
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        name, text = key.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _cookies(headers: Mapping[str, str]) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _completed(headers: list[tuple[bytes, bytes]], status: int, method: str) -> list[tuple[bytes, bytes]]:
    """Add what every answer carries."""
    there = {name.lower() for name, _ in headers}
    more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in there]
    if status >= 400 and method == "POST":
        # The rest of a body that is refused is not worth reading.
        more.append((b"connection", b"close"))
    return [*headers, *more]
