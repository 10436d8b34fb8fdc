"""Waiting for a job inside a request: long polls and `Prefer: wait`. Owns the preference and its bound; the news come
from the hub.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from fastapi import Request

from milepost.core.job import Job
from milepost.web.site import Site
from milepost.web.sse import Reader

LONGEST = 60.0
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)


def preferred_wait(request: Request) -> float | None:
    """The seconds of `Prefer: wait=n` (RFC 7240), at most 60; None when there is no such wish."""
    found = _WAIT.search(",".join(request.headers.getlist("prefer")))
    return None if found is None else min(float(found[1]), LONGEST)


async def wait_until(site: Site, job: Job, ready: Callable[[Job], bool], seconds: float) -> Job | None:
    """The job as soon as it is ready, or as it is after that time; None when it is gone. Ends early at a shutdown."""
    if ready(job) or seconds <= 0:
        return job
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    await site.hub.enter()
    reader = Reader(loop)
    channel = site.hub.listen(job.job_id, reader)
    try:
        while True:
            latest = await site.store.get(job.job_id)
            if latest is None or ready(latest):
                return latest
            channel.version = max(channel.version, latest.version)
            try:
                async with asyncio.timeout_at(deadline):
                    frames = await reader.take()
            except TimeoutError:
                return latest
            if any(frame.kind == "close" for frame in frames):
                return latest
    finally:
        site.hub.forget(channel, reader)
        site.hub.leave()
