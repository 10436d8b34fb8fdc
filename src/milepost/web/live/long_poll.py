"""Wait for a change of a job within a request: long polls and `Prefer: wait`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from fastapi import Request

from milepost.core.job import Job
from milepost.stores.query import created
from milepost.web.context import WebContext
from milepost.web.live.sse import StreamClient
from milepost.web.security.principals import ANYONE, Principal

MAX_SECONDS = 60.0
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)


def preferred_wait(request: Request) -> float | None:
    """Return the seconds of `Prefer: wait=n` (RFC 7240), at most 60, or None."""
    found = _WAIT.search(",".join(request.headers.getlist("prefer")))
    return None if found is None else min(float(found[1]), MAX_SECONDS)


async def wait_until(
    context: WebContext, job: Job, ready: Callable[[Job], bool], seconds: float, principal: Principal = ANYONE
) -> Job | None:
    """Wait until a job is ready, and return it; after the time, or at a shutdown, return it as it is.

    Return None if the job is gone: deleted, recreated, or no longer visible to the principal.
    """
    if ready(job) or seconds <= 0:
        return job
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    await context.hub.enter(principal)
    client = StreamClient(principal)
    channel = context.hub.listen(job.job_id, client)
    try:
        while True:
            latest = await context.store.get(job.job_id)
            if latest is None or created(latest) != created(job) or not principal.sees(latest):
                return None
            if ready(latest):
                return latest
            channel.version = max(channel.version, latest.version)
            try:
                async with asyncio.timeout_at(deadline):
                    frames = await client.take()
            except TimeoutError:
                return latest
            if any(frame.kind == "close" for frame in frames):
                return latest
    finally:
        context.hub.stop_listening(channel, client)
        context.hub.leave(principal)
