"""Waiting until a job may have changed."""

from __future__ import annotations

import time
from collections.abc import Callable

from milepost.stores.protocol import Store


async def wait_for_change(
    store: Store, job_id: str, position: str, timeout: float, monotonic: Callable[[], float] = time.monotonic
) -> str:
    """Wait until a job may have changed since a position of the feed, at most `timeout` seconds; return the next position.

    Changes of other jobs only cost a read of the feed.
    """
    deadline = monotonic() + timeout
    while True:
        news = await store.feed(position, timeout=timeout)
        position, timeout = news.position, deadline - monotonic()
        # A silent feed may have lost events.
        if news.lost or not news.events or timeout <= 0 or any(event.job_id == job_id for event in news.events):
            return position
