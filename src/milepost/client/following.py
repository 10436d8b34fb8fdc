"""Following one job over HTTP: server-sent events, taken up again where a connection broke. Owns the resuming; knows no
store.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx

from milepost.client.answers import error_of, event_of
from milepost.client.port import STREAM_SILENCE, Call, Port, pause
from milepost.core.errors import StoreUnavailable
from milepost.core.events import Event

COMMENT = ":"
TRIES = 20
"""Connections in a row that bring nothing before a watcher is told; about two minutes."""


async def messages(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str, str | None]]:
    """The messages of a stream: kind, data, id. A comment, with which a server says that it is there, is one too."""
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


async def follow(port: Port, job_id: str, path: str, after: int | None) -> AsyncIterator[Event]:
    """Each event of a job until its last word. Raises JobNotFound, and StoreUnavailable when the server stays away."""
    seen = after
    failures = 0
    while True:
        headers = {"Accept": "text/event-stream"} | ({} if seen is None else {"Last-Event-ID": str(seen)})
        problem: Exception
        try:
            async with port.lines(Call("GET", path, headers=headers, timeout=STREAM_SILENCE)) as (status, body, lines):
                if status == 204:
                    return
                if status == 200:
                    async for kind, data, event_id in messages(lines):
                        failures = 0
                        if kind == "end":
                            return
                        if kind == COMMENT:
                            continue
                        event = event_of(json.loads(data))
                        if event_id is not None:
                            seen = int(event_id)
                        yield event
                    problem = StoreUnavailable("the stream ended before the job")
                else:
                    problem = error_of(status, body, job_id)
                    if status not in (429, 502, 503, 504):
                        raise problem
        except httpx.TransportError as error:
            problem = StoreUnavailable(f"the server cannot be reached: {type(error).__name__}")
            problem.__cause__ = error
        failures += 1
        if failures >= TRIES:
            raise problem
        await port.pause(pause(failures))
