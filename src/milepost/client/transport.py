"""HTTP requests over httpx, blocking or async, with retries where they are safe, and the streams of events of a job.

An unsafe request is only repeated if it was certainly not applied: the connection failed, or the server could not
reach its store.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from milepost.client.decoding import decode_error, decode_event
from milepost.core.addresses import is_loopback
from milepost.core.defaults import RETRY_BUDGET
from milepost.core.errors import InvalidInputError, OutcomeUnknownError, StoreUnavailableError
from milepost.core.events import Event
from milepost.core.serialization import known_id, to_json
from milepost.forks import reset_after_fork
from milepost.stores.factory import redact_url

C = TypeVar("C", httpx.Client, httpx.AsyncClient)

MAX_BODY_BYTES = 2 * 1024 * 1024
TIMEOUT = 30.0
CONNECT_BUDGET = 5.0
"""Seconds of retries for a server that has never responded, because its address may be wrong."""
STREAM_TIMEOUT = 45.0
"""Seconds of silence after which a stream counts as broken; the server sends a comment every 15 s."""
MAX_RETRY_DELAY = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `safe` requests may be repeated. `job_id` is the job that a 404 refers to."""

    method: str
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    safe: bool = True
    job_id: str | None = None
    accepts: tuple[int, ...] = ()
    """Status codes that count as success beside 2xx."""
    timeout: float = TIMEOUT


class Requests:
    """The base of the groups of methods of a client: its transport, and a request to any endpoint."""

    _transport: Transport

    async def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Call any endpoint and return its JSON, or None."""
        raise NotImplementedError


def job_path(job_id: str, rest: str = "") -> str:
    """Return the path of a job. Raises JobNotFoundError for an invalid id, which would lead to another path."""
    return f"/api/jobs/{quote(known_id(job_id), safe='')}{rest}"


def _options(call: Call) -> dict[str, Any]:
    options: dict[str, Any] = {"params": call.params, "headers": call.headers, "timeout": call.timeout}
    if call.body is not None:
        options["content"] = body_text(call.body).encode()
        options["headers"] = {"Content-Type": "application/json", **call.headers}
    return options


def body_text(body: Any) -> str:
    """Return a body as JSON, encoded like a manager's values. Raises InvalidInputError with the field."""
    if not isinstance(body, dict):
        return to_json(body, "body", MAX_BODY_BYTES)
    fields = (f"{to_json(name, 'body')}:{to_json(value, str(name), MAX_BODY_BYTES)}" for name, value in body.items())
    return f"{{{','.join(fields)}}}"


class _HttpxTransport(Generic[C]):
    """The httpx client of a process. `has_responded`: the server was reached before, so retries are worthwhile.

    A forked child gets its own: two processes that read from one connection would get each other's responses.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self.has_responded = False
        self._make: Callable[[], C] = make
        self._lock = threading.Lock()
        self._made: C | None = make()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Leave the connections to the parent."""
        self._lock, self._made = threading.Lock(), None

    @property
    def _client(self) -> C:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class AsyncTransport(_HttpxTransport[httpx.AsyncClient]):
    """A transport over httpx.AsyncClient."""

    async def request(self, call: Call) -> httpx.Response:
        """Send a request once."""
        return await self._client.request(call.method, call.path, **_options(call))

    @asynccontextmanager
    async def lines(self, call: Call) -> AsyncIterator[tuple[int, bytes, AsyncIterator[str]]]:
        """Open a stream: its status, the body of an error, and its lines."""
        async with self._client.stream(call.method, call.path, **_options(call)) as answer:
            body = b"" if answer.status_code == 200 else await answer.aread()
            yield answer.status_code, body, answer.aiter_lines()

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class BlockingTransport(_HttpxTransport[httpx.Client]):
    """A transport over httpx.Client. Its coroutines never suspend."""

    async def request(self, call: Call) -> httpx.Response:
        return self._client.request(call.method, call.path, **_options(call))

    @asynccontextmanager
    async def lines(self, call: Call) -> AsyncIterator[tuple[int, bytes, AsyncIterator[str]]]:
        with self._client.stream(call.method, call.path, **_options(call)) as answer:
            body = b"" if answer.status_code == 200 else answer.read()

            async def lines() -> AsyncIterator[str]:
                for line in answer.iter_lines():
                    yield line

            yield answer.status_code, body, lines()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the blocking transport

    async def close(self) -> None:
        self._client.close()


Transport: TypeAlias = AsyncTransport | BlockingTransport


async def send(transport: Transport, call: Call) -> httpx.Response:
    """Send a request, with retries for up to 30 s where that is safe. Raises the error of the response."""
    started = time.monotonic()
    tries = 0
    while True:
        tries += 1
        wait: float | None = None
        try:
            answer = await transport.request(call)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            problem: Exception = StoreUnavailableError(f"cannot reach the server: {error}")
            problem.__cause__ = error
        except httpx.TransportError as error:
            text = f"{call.method} {call.path}: no response ({type(error).__name__})"
            problem = (
                StoreUnavailableError(text)
                if call.safe
                else OutcomeUnknownError(f"{text}; the request may have been applied")
            )
            problem.__cause__ = error
            if not call.safe:
                raise problem from error
        else:
            transport.has_responded = True
            if answer.is_success or answer.status_code in call.accepts:
                check_is_json(answer)
                return answer
            problem = decode_error(answer.status_code, answer.content, call.job_id)
            if answer.status_code in (502, 504) and not call.safe:
                # From a proxy, which only knows that it got no response.
                text = f"{call.method} {call.path}: proxy error {answer.status_code}; the request may have been applied"
                raise OutcomeUnknownError(text) from problem
            wait = retry_after(answer)
            under_way = answer.status_code == 409 and wait is not None
            if under_way:  # an earlier attempt of this request, still in progress or with a lost response
                problem = OutcomeUnknownError(str(problem))
            again = (
                under_way
                or answer.status_code == 429
                or (
                    answer.status_code in (502, 503, 504)
                    and (call.safe or not isinstance(problem, OutcomeUnknownError))
                )
            )
            if not again:
                raise problem
        wait = pause(tries) if wait is None else wait
        if time.monotonic() - started + wait > (RETRY_BUDGET if transport.has_responded else CONNECT_BUDGET):
            raise problem
        await transport.pause(wait)


def check_is_json(answer: httpx.Response) -> None:
    """Raise InvalidInputError for a response that is not JSON, such as a login page."""
    kind = answer.headers.get("content-type", "")
    if answer.content and "json" not in kind:
        where = redact_url(str(answer.request.url.copy_with(query=None)))
        raise InvalidInputError(
            "url", f"{where} responded {answer.status_code} with {kind or 'no content type'}; is it a milepost server?"
        )


def retry_after(answer: httpx.Response) -> float | None:
    """Return the seconds of `Retry-After`, or None."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None


def pause(tries: int) -> float:
    """Return the seconds before the next attempt: exponential backoff with full jitter, at most 10 s."""
    return random.uniform(0.05, min(MAX_RETRY_DELAY, 0.2 * 2.0**tries))


COMMENT = ":"
MAX_FAILED_CONNECTIONS = 20
"""Failed connections in a row before a watch fails, after about two minutes."""


async def parse_sse(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str, str | None]]:
    """Yield the messages of a stream as (kind, data, id). Comments, the server's keep-alive, are yielded too."""
    kind, event_id = "message", None
    data: list[str] = []
    async for line in lines:
        if not line:
            if data:
                yield kind, "\n".join(data), event_id
            kind, data, event_id = "message", [], None
            continue
        if line.startswith(":"):
            yield COMMENT, "", None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            event_id = value


async def follow_job(transport: Transport, job_id: str, path: str, after: str | None) -> AsyncIterator[Event]:
    """Yield the events of a job until it ends. Raises as `follow_stream`."""
    async with aclosing(follow_stream(transport, job_id, path, after)) as messages:
        async for _, data, event_id in messages:
            yield replace(decode_event(json.loads(data)), position=event_id)


async def follow_stream(
    transport: Transport, job_id: str, path: str, after: str | None
) -> AsyncGenerator[tuple[str, str, str | None]]:
    """Yield the messages of a stream of a job, as (kind, data, id), until the job ends; a broken connection is resumed.

    Raises JobNotFoundError, and StoreUnavailableError after an outage.
    """
    seen = after
    failures = 0
    while True:
        headers = {"Accept": "text/event-stream"} | ({} if seen is None else {"Last-Event-ID": seen})
        problem: Exception
        try:
            async with transport.lines(Call("GET", path, headers=headers, timeout=STREAM_TIMEOUT)) as (
                status,
                body,
                lines,
            ):
                if status == 204:
                    return
                if status == 200:
                    async for kind, data, event_id in parse_sse(lines):
                        failures = 0
                        if kind == "end":
                            return
                        if kind == COMMENT:
                            continue
                        if event_id is not None:
                            seen = event_id
                        yield kind, data, event_id
                    problem = StoreUnavailableError("the stream ended before the job did")
                else:
                    problem = decode_error(status, body, job_id)
                    if status not in (429, 502, 503, 504):
                        raise problem
        except httpx.TransportError as error:
            problem = StoreUnavailableError(f"cannot reach the server: {type(error).__name__}")
            problem.__cause__ = error
        failures += 1
        if failures >= MAX_FAILED_CONNECTIONS:
            raise problem
        await transport.pause(pause(failures))


def server_address(url: str) -> str:
    """Return the URL of a server without a trailing slash. Raises InvalidInputError."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInputError("url", f"{redact_url(url)!r:.80} is not a server URL; use http://host:port")
    try:
        httpx.URL(url)
    except httpx.InvalidURL as wrong:
        raise InvalidInputError("url", f"{redact_url(url)!r:.80} is not a valid URL: {wrong}") from None
    if "?" in url or "#" in url:
        raise InvalidInputError(
            "url", f"{redact_url(url)!r:.80} must not have a query; pass an API key with key= or MILEPOST_KEY"
        )
    return url.rstrip("/")


def connection(url: str, key: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the httpx client. Raises InvalidInputError for a malformed key.

    A server on this machine is reached without the proxy of the environment, which would get the key.
    """
    key = (key or "").strip()  # a key read from a file often ends with a newline
    if not key.isascii() or not key.isprintable():
        raise InvalidInputError("key", "contains invalid characters; an API key looks like mp_<id>_<secret>")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if is_loopback(httpx.URL(url).host) and not options.keys() & {"proxy", "mounts"}:
        options = {**options, "mounts": dict.fromkeys(("http://", "https://", "all://"))}
    return {"base_url": url, **options, "headers": {**headers, **options.get("headers", {})}}
