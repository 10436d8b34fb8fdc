"""A worker of a simulated newer release: python -m tests.chaos.newer_release.

It has a job type that this release does not have, starts jobs with an unknown field and an unknown event, and publishes
unknown properties of its types and of itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, cast

from milepost import Run
from milepost.core.transitions import plan_start
from milepost.core.transitions.change import Change, Const, TransitionType
from milepost.stores.protocol import KeyValueStore
from milepost.worker import registry, run_worker, store_requests
from milepost.worker.registry import JobType, WorkerEntry, publish, write_worker
from tests.worker.application import jobs, note

ZONE = "eu-7"


def brand_new(run: Run, text: str = "") -> dict[str, Any]:
    """Write a line."""
    note(f"brand-new {text} {os.getpid()}")
    return {"pid": os.getpid()}


@cache
def _with_zone(transition: TransitionType) -> TransitionType:
    branches = [
        replace(branch, ops=(*branch.ops, ("set", "zone", Const(ZONE))), emit=(*branch.emit, "zone"))
        for branch in transition.branches
    ]
    return replace(transition, branches=tuple(branches))


def start_in_zone(operation_id: str, **given: Any) -> Change:
    """Return a start that leaves a field in the record, and in its event, that this release does not know."""
    change = plan_start(operation_id, **given)
    return change._replace(transition=_with_zone(change.transition))


class Adding:
    """A key-value store that puts more into each value than this release knows."""

    def __init__(self, store: KeyValueStore, **more: Any) -> None:
        self._store = store
        self._more = more

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def kv_put(self, key: str, value: str, **options: Any) -> int | None:
        """Put the value with more in it."""
        return await self._store.kv_put(key, json.dumps({**json.loads(value), **self._more}), **options)


async def write_more(store: KeyValueStore, entry: WorkerEntry, ttl: float, **options: Any) -> int | None:
    """Write the entry of a worker with more in it."""
    return await write_worker(cast(KeyValueStore, Adding(store, zone=ZONE, load={"cpu": 0.5})), entry, ttl, **options)


async def publish_more(store: KeyValueStore, types: Iterable[JobType], history: dict[str, list[str]]) -> None:
    """Publish the types of a worker with more in them."""
    await publish(cast(KeyValueStore, Adding(store, zone=ZONE, retries={"most": 3})), types, history)


def become_newer() -> None:
    """Let this process be of the release to come."""
    vars(store_requests)["plan_start"] = start_in_zone
    vars(registry).update(write_worker=write_more, publish=publish_more)
    jobs.job("brand-new")(brand_new)


if __name__ == "__main__":
    become_newer()
    raise SystemExit(run_worker(jobs, concurrency=4))
