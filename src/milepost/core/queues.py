"""The names under which workers claim jobs: a type, or a type in a queue of its own."""

from __future__ import annotations

QUEUE_BYTES = 128


def ready_name(job_type: str, queue: str | None = None) -> str:
    """Return the name under which jobs of a type in a queue are claimed: the type, which is its default queue, or ``type@queue``."""
    return job_type if queue is None or queue == job_type else f"{job_type}@{queue}"


def limit_name(ready: str) -> str:
    """Return the type of such a name: limits and pauses are set for a type, whatever its queues."""
    return ready.partition("@")[0]
