"""Following one job by server-sent events, resumed after a broken connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx

from milepost.client.decoding import decode_error, decode_event
from milepost.client.transport import STREAM_TIMEOUT, Call, Transport, pause
from milepost.core.errors import StoreUnavailableError
from milepost.core.events import Event

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
    """Yield the events of a job until it ends. Raises JobNotFoundError, and StoreUnavailableError after an outage."""
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
                        yield replace(decode_event(json.loads(data)), position=event_id)
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
