"""Dramatiq on Redis with its result backend."""

from __future__ import annotations

import threading
from typing import Any

from benchmarks.job_ticks import tick


def actor(url: str) -> Any:
    """Return the actor of the broker."""
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker = RedisBroker(url=url)
    broker.add_middleware(Results(backend=RedisBackend(url=url)))
    return dramatiq.actor(tick, broker=broker, actor_name="noop", store_results=True)


class Connected:
    """Submits by `send`; Dramatiq has no call for many."""

    def __init__(self, url: str) -> None:
        self._actor = actor(url)

    async def submit(self) -> None:
        """Send one message."""
        self._actor.send()


connect = Connected


def work(url: str) -> None:
    """Run one process of eight threads, its default."""
    from dramatiq import Worker

    Worker(actor(url).broker, worker_threads=8).start()
    threading.Event().wait()
