"""The application: what is answered to which request, as JSON, and the page."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial, wraps
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from lifelong.data.naming import shown
from lifelong.errors import LifelongError, near_miss
from lifelong.experiment.locking import folder_lock
from lifelong.opening import MOST_TEXT, read_bytes, refuse_links
from lifelong.serving.describing import answer_of, forget, roll_back, run_of, tasks_of, versions_of
from lifelong.serving.drafts import FOLDER, Drafts, NoDraftError
from lifelong.serving.entrance import COOKIE, SESSION, Entrance
from lifelong.serving.guard import Guard
from lifelong.serving.limits import Limits, Room
from lifelong.serving.measuring import Measured, resident_bytes
from lifelong.serving.model import ServedModel
from lifelong.serving.reading import form_of, images_of, json_of, length_of
from lifelong.serving.workshop import Workshop
from lifelong.settings.run import Environment

T = TypeVar("T")

WRONG = b'<p class="warn" role="alert">This is not the token.</p>\n  '
"""What the page that asks for the token says to another one."""

PAGE = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Types of the files of the page."""

REPORT = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox"
)
"""The policy of the report, which stands in the run's folder: whatever it holds, no script of it runs."""

log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


class Service:
    """Answers requests for one run.

    Args:
        run: the run directory.
        place: where data, weights and the device are.
        limits: how much may be asked.
        read_only: whether nothing can be learned.

    Raises:
        LifelongError: the run cannot be opened or predicted with.
    """

    def __init__(self, run: Path, place: Environment, limits: Limits, read_only: bool = False) -> None:
        self.limits, self.read_only = limits, read_only
        self.measured = Measured()
        self.model = ServedModel(run, place, limits)
        self._held = ExitStack()
        self.drafts = self.workshop = None
        if not read_only:
            self._held.enter_context(_only_server(run))
            self.drafts = Drafts(run, limits)
            self.workshop = Workshop(self.model, self.drafts, place)
        self.files = {file.name: file.read_bytes() for file in files("lifelong.serving").joinpath("page").iterdir() if file.is_file()}
        self.files["wrong.html"] = self.files["login.html"].replace(b"<form", WRONG + b"<form", 1)
        self._asking, self._sending = Room(limits.memory_bytes), Room(limits.memory_bytes)
        self._waiting = 0

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncGenerator[None]:
        """Go on with what was being learned; at the end, stop learning so that the next start can go on."""
        if self.workshop is not None and self.drafts is not None:
            for note in [*self.drafts.notes, *self.workshop.resume()]:
                log.info("%s", note)
        try:
            yield
        finally:
            await run_in_threadpool(self.close)

    def close(self) -> None:
        """Stop learning and predicting."""
        if self.workshop is not None:
            self.workshop.close()
        self.model.close()
        self._held.close()

    # What is known of the run.

    async def health(self, request: Request) -> Response:
        """Say that the server is alive."""
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Write what was counted, for Prometheus."""
        opened = self.model.current
        learning = self.workshop is not None and self.workshop.status()["learning"] is not None
        now = {"tasks": len(opened.predictor.tasks), "model_version": opened.version, "learning": int(learning)}
        text = self.measured.text(now | {"resident_memory_bytes": resident_bytes()})
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def run(self, request: Request) -> Response:
        """Describe the run, and what can be done with it here."""
        limits = {key: getattr(self.limits, key) for key in ("request_bytes", "images", "pixels", "draft_images", "draft_bytes", "name")}
        can = dict.fromkeys(("learn", "roll_back", "forget"), not self.read_only)
        return JSONResponse(
            run_of(self.model.current) | {"limits": limits, "can": can | {"log_out": request.scope["entrance"].needs_token}}
        )

    async def tasks(self, request: Request) -> Response:
        """List the tasks with their distances and decisions."""
        opened = self.model.current
        return JSONResponse({"version": opened.version, "tasks": tasks_of(opened)})

    async def report(self, request: Request) -> Response:
        """Send the run's report, as `lifelong report` wrote it."""
        refuse_links(self.model.run, ("report.html",))
        try:
            page = await run_in_threadpool(read_bytes, self.model.run / "report.html", MOST_TEXT)
        except FileNotFoundError:
            raise HTTPException(404, "this run has no report yet; write it with: lifelong report RUN") from None
        return Response(page, media_type="text/html", headers={"content-security-policy": REPORT, "x-frame-options": "SAMEORIGIN"})

    # Predictions.

    async def predict(self, request: Request) -> Response:
        """Classify the images of a request: parts `image` of a form with an optional field `task`, or the body itself."""
        if self._waiting >= self.limits.waiting:
            raise HTTPException(503, "too many requests are waiting; try again in a moment", {"retry-after": "1"})
        self._waiting += 1
        try:
            async with self._asking.taken(length_of(request, self.limits)):
                images, fields = await images_of(request, self.limits, ("task",))
                task = fields.get("task") or None
                if task is not None:
                    self._check_task(task)
                work = partial(self.model.predict, images, task)
                opened, answers = await asyncio.wrap_future(self.model.threads.submit(work))
        finally:
            self._waiting -= 1
        rows = [answer_of(place, answer) for place, answer in enumerate(answers)]
        strange = sum(bool(row.get("strange")) for row in rows)
        unusable = sum(row["error"] is not None for row in rows)
        self.measured.images(len(rows) - strange - unusable, strange, unusable)
        return JSONResponse({"version": opened.version, "predictions": rows})

    # Tasks that are put together and learned.

    async def list_drafts(self, request: Request) -> Response:
        """List the tasks that are put together, or were."""
        return JSONResponse({"drafts": [draft.plain() for draft in self._drafts]})

    async def make_draft(self, request: Request) -> Response:
        """Begin to put a task together."""
        told = await json_of(request, self.limits, {"name": str})
        # Now, not when it is learned: its images would have to be sent again under another name.
        self._learning.check_free(self._drafts.usable(told["name"], "the task's name"))
        return JSONResponse((await run_in_threadpool(self._drafts.make, told["name"])).plain(), 201)

    async def show_draft(self, request: Request) -> Response:
        """Describe a draft."""
        return JSONResponse(self._drafts.get(request.path_params["draft"]).plain())

    async def drop_draft(self, request: Request) -> Response:
        """Delete a draft and its images."""
        await run_in_threadpool(self._drafts.drop, self._drafts.get(request.path_params["draft"]))
        return Response(status_code=204)

    async def add_images(self, request: Request) -> Response:
        """Add images of one class to a draft: parts `image` of a form with the field `class`."""
        draft = self._drafts.get(request.path_params["draft"])
        async with self._sending.taken(length_of(request, self.limits)):
            images, fields = await images_of(request, self.limits, ("class",))
            if "class" not in fields:
                raise HTTPException(400, "no class; name it in the form's field 'class'")
            received = await run_in_threadpool(self._drafts.add, draft, fields["class"], images)
        return JSONResponse(received.plain() | {"draft": draft.plain()})

    async def learn(self, request: Request) -> Response:
        """Begin to learn a draft."""
        await run_in_threadpool(self._learning.begin, self._drafts.get(request.path_params["draft"]))
        return JSONResponse(self._learning.status(), 202)

    async def learning(self, request: Request) -> Response:
        """Say how far learning is."""
        return JSONResponse(self._learning.status())

    async def cancel(self, request: Request) -> Response:
        """Stop learning; the run stays as it was."""
        if not self._learning.cancel():
            raise HTTPException(409, "nothing is being learned")
        return JSONResponse(self._learning.status(), 202)

    # Versions.

    async def history(self, request: Request) -> Response:
        """List the versions of the run."""
        return JSONResponse({"versions": await run_in_threadpool(versions_of, self.model.run)})

    async def rollback(self, request: Request) -> Response:
        """Bring the run back to an earlier version."""
        told = await json_of(request, self.limits, {"to": int})

        def back() -> None:
            roll_back(self.model.run, told["to"])
            self.model.reopen()

        await run_in_threadpool(self._learning.quiet, back)
        return JSONResponse(run_of(self.model.current))

    async def would_forget(self, request: Request) -> Response:
        """Say what would go with a task, or why it cannot be forgotten, and change nothing."""
        task = request.query_params.get("task", "")
        try:
            return JSONResponse(await self._without(task, True) | {"refused": None})
        except LifelongError as error:
            return JSONResponse({"task": task, "refused": str(error)})

    async def forget(self, request: Request) -> Response:
        """Forget a task."""
        told = await json_of(request, self.limits, {"task": str})
        return JSONResponse(await self._without(told["task"], False) | run_of(self.model.current))

    async def _without(self, task: str, dry_run: bool) -> dict[str, Any]:
        self._check_task(task)
        found: dict[str, Any] = {}

        def work() -> None:
            found.update(forget(self.model.run, task, dry_run))
            if not dry_run:
                self.model.reopen()

        await run_in_threadpool(self._learning.quiet, work)
        return found

    # The page.

    async def page(self, request: Request) -> Response:
        """Send the page."""
        return self._file("index.html")

    async def page_file(self, request: Request) -> Response:
        """Send one of the files that the page consists of."""
        return self._file(request.path_params["name"])

    async def login_page(self, request: Request) -> Response:
        """Send the page that asks for the token."""
        return self._file("login.html")

    async def login(self, request: Request) -> Response:
        """Log a person in who knows the token."""
        entrance: Entrance = request.scope["entrance"]
        form = await form_of(request, self.limits)
        given = form.get("token")
        if not isinstance(given, str) or not entrance.fits(given.strip()):
            return self._file("wrong.html", 403)
        there = RedirectResponse("/", 303)
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
        there.set_cookie(COOKIE, entrance.admit(), SESSION, path="/", secure=secure, httponly=True, samesite="strict")
        return there

    async def logout(self, request: Request) -> Response:
        """Log a person out."""
        request.scope["entrance"].dismiss(request.cookies.get(COOKIE, ""))
        there = RedirectResponse("/login", 303)
        there.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return there

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        reading = [
            Route("/", self.page),
            Route("/page/{name}", self.page_file),
            Route("/login", self.login_page),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/v1/health", self.health),
            Route("/v1/ready", self.health),
            Route("/v1/metrics", self.metrics),
            Route("/v1/run", self.run),
            Route("/v1/tasks", self.tasks),
            Route("/v1/report", self.report),
            Route("/v1/history", self.history),
            Route("/v1/predict", self.predict, methods=["POST"]),
        ]
        learning = [
            Route("/v1/drafts", self.list_drafts),
            Route("/v1/drafts", self.make_draft, methods=["POST"]),
            Route("/v1/drafts/{draft}", self.show_draft),
            Route("/v1/drafts/{draft}", self.drop_draft, methods=["DELETE"]),
            Route("/v1/drafts/{draft}/images", self.add_images, methods=["POST"]),
            Route("/v1/drafts/{draft}/learn", self.learn, methods=["POST"]),
            Route("/v1/learning", self.learning),
            Route("/v1/learning", self.cancel, methods=["DELETE"]),
            Route("/v1/rollback", self.rollback, methods=["POST"]),
            Route("/v1/forget", self.would_forget),
            Route("/v1/forget", self.forget, methods=["POST"]),
        ]
        return reading if self.read_only else [*reading, *learning]

    def _check_task(self, name: str) -> None:
        known = self.model.current.predictor.tasks
        if name not in known:
            raise HTTPException(404, f"no task {shown(name[:80])!r}{near_miss(name[:80], known)}")

    @property
    def _drafts(self) -> Drafts:
        assert self.drafts is not None
        return self.drafts

    @property
    def _learning(self) -> Workshop:
        assert self.workshop is not None
        return self.workshop

    def _file(self, name: str, status: int = 200) -> Response:
        """Send a file of the page; it was read when the server started, and no path is opened now."""
        content = self.files.get(name)
        if content is None:
            raise HTTPException(404)
        return Response(content, status, media_type=PAGE[name.rpartition(".")[2]], headers={"cache-control": "no-cache"})


def application(service: Service, entrance: Entrance) -> Guard:
    """Make the ASGI application of a service.

    Args:
        service: answers.
        entrance: decides who may ask.
    """

    async def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            said = error.detail if error.detail != HTTPStatus(error.status_code).phrase else error.detail.lower()
            return JSONResponse({"error": said}, error.status_code, dict(error.headers or {}))
        status = 404 if isinstance(error, NoDraftError) else 400
        return JSONResponse({"error": str(error)}, status)

    async def crashed(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"error": "the server has failed on this request; its log says why"}, 500)

    def known(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def answer(request: Request) -> Response:
            request.scope["entrance"] = entrance
            return await endpoint(request)

        return answer

    routes = [Route(route.path, known(route.endpoint), methods=[*(route.methods or ())]) for route in service.routes()]
    handlers: Any = {HTTPException: failed, LifelongError: failed, Exception: crashed, ClientDisconnect: _gone}
    app: Any = Starlette(routes=routes, exception_handlers=handlers, lifespan=service.lifespan)
    return Guard(app, entrance, service.limits, service.measured)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


def _only_server(run: Path) -> Any:
    """Keep other servers from learning into a run."""
    refuse_links(run, (FOLDER,))
    held = folder_lock(run / FOLDER)
    try:
        held.__enter__()
    except LifelongError as error:
        if "another process" in str(error):
            raise LifelongError(f"another server learns into {run}; stop it, or give --read-only") from error
        raise LifelongError(f"cannot keep uploads in {run}: {error.__cause__ or error}; make it writable, or give --read-only") from error
    stack = ExitStack()
    stack.push(held)
    return stack
