"""Serves an ASGI application from a view of Django, under WSGI and ASGI servers: its event loop runs in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

BUFFERED = 16
"""Messages of a stream that wait for its client. The application waits while there are more."""
SINGLE_THREADED_SECONDS = 0.5
"""How long a stream may occupy a server process that handles one request at a time. Its client connects again."""


class EmbeddedApp:
    """An ASGI application in this process, created and started at its first request. `make_app` is called once a process."""

    def __init__(self, make_app: Callable[[], Any]) -> None:
        self._make_app = make_app
        self._lock = threading.Lock()
        self._process: int | None = None
        self._loop: asyncio.AbstractEventLoop
        self._app: Any

    async def respond(self, request: HttpRequest, mount: str, extra: dict[str, Any]) -> HttpResponseBase:
        """Return the response of the application to a request below the path `mount`. `extra` is added to the scope."""
        self._start()
        exchange = _Exchange(self._loop, request.body)
        scope = {**_scope(request, mount), **extra}
        exchange.begin(self._app, scope)
        try:
            start, body = await exchange.next(), await exchange.next()
        except asyncio.CancelledError:  # the client has gone before the first bytes
            exchange.cancel()
            raise
        assert start is not None, "an application sends a response or raises"
        response: HttpResponseBase
        if body is None or not body.get("more_body"):
            response = HttpResponse(b"" if body is None else body.get("body", b""))
        else:
            is_asgi = hasattr(request, "scope")
            only_thread = not is_asgi and not request.META.get("wsgi.multithread", True)
            until = time.monotonic() + SINGLE_THREADED_SECONDS if only_thread else None
            chunks = exchange.stream(body) if is_asgi else exchange.blocking_stream(body, until)
            response = StreamingHttpResponse(chunks)
        response.status_code = start["status"]
        for name, value in start["headers"]:
            response[name.decode("latin-1")] = value.decode("latin-1")
        return response

    def _start(self) -> None:
        with self._lock:
            if self._process == os.getpid():
                return
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="milepost-admin", daemon=True).start()
            asyncio.run_coroutine_threadsafe(self._enter(), self._loop).result()
            self._process = os.getpid()

    async def _enter(self) -> None:
        self._app = self._make_app()
        self._lifespan = self._app.router.lifespan_context(self._app)
        await self._lifespan.__aenter__()


class _Exchange:
    """One request to the application and its response. The application runs in its loop, the client's side elsewhere."""

    def __init__(self, loop: asyncio.AbstractEventLoop, body: bytes) -> None:
        self._loop = loop
        self._body: bytes | None = body
        self._messages: asyncio.Queue[Any] = asyncio.Queue(BUFFERED)
        self._task: Any = None

    def begin(self, app: Any, scope: dict[str, Any]) -> None:
        """Start the application."""
        self._task = asyncio.run_coroutine_threadsafe(self._run(app, scope), self._loop)

    def cancel(self) -> None:
        """Stop the application."""
        self._task.cancel()

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        end: Any = None
        try:
            await app(scope, self._receive, self._messages.put)
        except Exception as error:  # noqa: BLE001 - raised where the response is awaited
            end = error
        await self._messages.put(end)

    async def _receive(self) -> dict[str, Any]:
        if self._body is None:
            await asyncio.Event().wait()  # the task is cancelled when the client has gone
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def next(self) -> Any:
        """Return the next message, None at the end. Raises what the application raised."""
        return _raised(await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._messages.get(), self._loop)))

    async def stream(self, message: Any) -> AsyncIterator[bytes]:
        """Yield the body for an ASGI server, from its first message."""
        try:
            while message is not None:
                yield message.get("body", b"")
                message = await self.next()
        finally:
            self._task.cancel()

    def blocking_stream(self, message: Any, until: float | None) -> Iterator[bytes]:
        """Yield the body for a WSGI server, from its first message, to a time of `time.monotonic`."""
        try:
            while message is not None:
                yield message.get("body", b"")
                following = asyncio.run_coroutine_threadsafe(self._messages.get(), self._loop)
                try:
                    message = _raised(following.result(None if until is None else max(0, until - time.monotonic())))
                except TimeoutError:
                    following.cancel()
                    return
        finally:
            self._task.cancel()


def _raised(message: Any) -> Any:
    if isinstance(message, Exception):
        raise message
    return message


def _scope(request: HttpRequest, mount: str) -> dict[str, Any]:
    """Return the ASGI scope of a request. Credentials stay with Django, which has checked them."""
    private = ("cookie", "authorization")
    headers = {"host": request.get_host(), **{name.lower(): value for name, value in request.headers.items()}}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": mount.rstrip("/"),
        "query_string": request.META.get("QUERY_STRING", "").encode("latin-1"),
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items() if name not in private
        ],
        "client": (request.META.get("REMOTE_ADDR", ""), 0),
        "server": (request.META.get("SERVER_NAME", ""), None),
        "state": {},
    }
