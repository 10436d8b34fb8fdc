"""Speaking HTTP: a request is a value, sent over httpx in its blocking or its asynchronous edition, again where that is
safe. Owns retries, `Retry-After` and timeouts; knows no job.

A request that may not be repeated is repeated only when it certainly was not carried out: the connection failed, or
the server says that it could not reach its store.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from milepost.client.answers import error_of
from milepost.core.defaults import RETRY_BUDGET
from milepost.core.encoding import to_json
from milepost.core.errors import InvalidInput, OutcomeUnknown, StoreUnavailable

BODY_BYTES = 2 * 1024 * 1024
TIMEOUT = 30.0
CONNECT_BUDGET = 5.0
"""Seconds for which a server that has never answered is tried: it may be a wrong address, and somebody may wait."""
STREAM_SILENCE = 45.0
"""The server comments every 15 s: three of them missing, and the connection is taken for dead."""
PAUSE_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `safe`: it may be sent again. `job_id` is what a 404 is about."""

    method: str
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    safe: bool = True
    job_id: str | None = None
    accepts: tuple[int, ...] = ()
    """Statuses that are answers beside the 200s."""
    timeout: float = TIMEOUT


class Port(Protocol):
    """httpx, in one of its editions. `answered`: the server was there, so it is likely to come back."""

    answered: bool

    async def request(self, call: Call) -> httpx.Response:
        """Send once."""

    def lines(self, call: Call) -> Any:
        """Open a stream: an asynchronous context manager of (status, body of an error, lines)."""

    async def pause(self, seconds: float) -> None:
        """Wait."""

    async def close(self) -> None:
        """Give back connections."""


def _options(call: Call) -> dict[str, Any]:
    options: dict[str, Any] = {"params": call.params, "headers": call.headers, "timeout": call.timeout}
    if call.body is not None:
        options["content"] = body_text(call.body).encode()
        options["headers"] = {"Content-Type": "application/json", **call.headers}
    return options


def body_text(body: Any) -> str:
    """A body as JSON, its values in the forms in which a manager writes them. Raises InvalidInput, naming the field."""
    if not isinstance(body, dict):
        return to_json(body, "body", BODY_BYTES)
    fields = (f"{to_json(name, 'body')}:{to_json(value, str(name), BODY_BYTES)}" for name, value in body.items())
    return f"{{{','.join(fields)}}}"


class AsyncPort:
    """Over httpx.AsyncClient."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.answered = False
        self._client = client

    async def request(self, call: Call) -> httpx.Response:
        """See Port."""
        return await self._client.request(call.method, call.path, **_options(call))

    @asynccontextmanager
    async def lines(self, call: Call) -> AsyncIterator[tuple[int, bytes, AsyncIterator[str]]]:
        """See Port."""
        async with self._client.stream(call.method, call.path, **_options(call)) as answer:
            body = b"" if answer.status_code == 200 else await answer.aread()
            yield answer.status_code, body, answer.aiter_lines()

    async def pause(self, seconds: float) -> None:
        """See Port."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """See Port."""
        await self._client.aclose()


class BlockingPort:
    """Over httpx.Client; its coroutines never suspend, and `drive` steps them."""

    def __init__(self, client: httpx.Client) -> None:
        self.answered = False
        self._client = client

    async def request(self, call: Call) -> httpx.Response:
        """See Port."""
        return self._client.request(call.method, call.path, **_options(call))

    @asynccontextmanager
    async def lines(self, call: Call) -> AsyncIterator[tuple[int, bytes, AsyncIterator[str]]]:
        """See Port."""
        with self._client.stream(call.method, call.path, **_options(call)) as answer:
            body = b"" if answer.status_code == 200 else answer.read()

            async def lines() -> AsyncIterator[str]:
                for line in answer.iter_lines():
                    yield line

            yield answer.status_code, body, lines()

    async def pause(self, seconds: float) -> None:
        """See Port."""
        time.sleep(seconds)  # noqa: ASYNC251 - this edition blocks, and that is what it is for

    async def close(self) -> None:
        """See Port."""
        self._client.close()


async def send(port: Port, call: Call) -> httpx.Response:
    """The answer to a request, repeated within 30 s where that is safe. Raises the error that the answer stands for."""
    started = time.monotonic()
    tries = 0
    while True:
        tries += 1
        wait: float | None = None
        try:
            answer = await port.request(call)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            problem: Exception = StoreUnavailable(f"the server cannot be reached: {error}")
            problem.__cause__ = error
        except httpx.TransportError as error:
            text = f"{call.method} {call.path}: no answer ({type(error).__name__})"
            problem = StoreUnavailable(text) if call.safe else OutcomeUnknown(f"{text}; it may have been carried out")
            problem.__cause__ = error
            if not call.safe:
                raise problem from error
        else:
            port.answered = True
            if answer.is_success or answer.status_code in call.accepts:
                refuse_strangers(answer)
                return answer
            problem = error_of(answer.status_code, answer.content, call.job_id)
            if answer.status_code in (502, 504) and not call.safe:
                # Said by a proxy, which knows only that it got no answer.
                text = f"{call.method} {call.path}: a proxy answered {answer.status_code}; it may have been carried out"
                raise OutcomeUnknown(text) from problem
            wait = retry_after(answer)
            under_way = answer.status_code == 409 and wait is not None
            if under_way:  # an earlier try of this very request, whose answer was lost or is not there yet
                problem = OutcomeUnknown(str(problem))
            again = (
                under_way
                or answer.status_code == 429
                or (answer.status_code in (502, 503, 504) and (call.safe or not isinstance(problem, OutcomeUnknown)))
            )
            if not again:
                raise problem
        wait = pause(tries) if wait is None else wait
        if time.monotonic() - started + wait > (RETRY_BUDGET if port.answered else CONNECT_BUDGET):
            raise problem
        await port.pause(wait)


def refuse_strangers(answer: httpx.Response) -> None:
    """Refuse an answer that no server of jobs gives, such as the page of a sign-in. Raises InvalidInput."""
    kind = answer.headers.get("content-type", "")
    if answer.content and "json" not in kind:
        where = answer.request.url.copy_with(query=None)
        raise InvalidInput(
            "url", f"{where} answered {answer.status_code} with {kind or 'no type'}; is it a milepost server?"
        )


def retry_after(answer: httpx.Response) -> float | None:
    """The seconds of `Retry-After`."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None


def pause(tries: int) -> float:
    """How long to wait before the next try: doubling, with full jitter, at most 10 s."""
    return random.uniform(0.05, min(PAUSE_MAX, 0.2 * 2.0**tries))
