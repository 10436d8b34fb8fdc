"""A worker of a release that is still to come, beside those of this one: python -m tests.chaos.newer.

It has a type that this release knows nothing of, starts jobs with a field and an event that no reader of this release has
heard of, and publishes more of its types and of itself than this release reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from milepost import Run
from milepost.core.change import Change, Shape
from milepost.core.lifecycle import plan_start
from milepost.stores.protocol import Shelf
from milepost.worker import claiming, presence, run_worker
from milepost.worker.published import JobType, WorkerEntry
from tests.worker.application import jobs, note

ZONE = "eu-7"


def brand_new(run: Run, text: str = "") -> dict[str, Any]:
    """Write a line."""
    note(f"brand-new {text} {os.getpid()}")
    return {"pid": os.getpid()}


@cache
def _with_zone(shape: Shape) -> Shape:
    cases = [
        replace(case, ops=(*case.ops, ("set", "zone", f"={ZONE}")), emit=(*case.emit, "zone")) for case in shape.cases
    ]
    return replace(shape, cases=tuple(cases))


def start_in_zone(op: str, **given: Any) -> Change:
    """A start that leaves a field in the record, and in its event, that this release does not know."""
    change = plan_start(op, **given)
    return change._replace(shape=_with_zone(change.shape))


async def write_more(shelf: Shelf, entry: WorkerEntry, ttl: float) -> None:
    """The entry of a worker with more in it."""
    text = json.dumps({**entry.to_dict(), "zone": ZONE, "load": {"cpu": 0.5}})
    await shelf.shelf_put(f"worker/{entry.name}", text, ttl=ttl)


async def publish_more(shelf: Shelf, types: Iterable[JobType]) -> None:
    """The types of a worker with more in them."""
    for known in types:
        text = json.dumps({"name": known.name, "schema": known.schema, "zone": ZONE, "retries": {"most": 3}})
        await shelf.shelf_put(f"type/{known.name}", text, ttl=3600)


def become_newer() -> None:
    """Let this process be of the release to come."""
    vars(claiming)["plan_start"] = start_in_zone
    vars(presence).update(write_worker=write_more, publish=publish_more)
    jobs.job("brand-new")(brand_new)


if __name__ == "__main__":
    become_newer()
    raise SystemExit(run_worker(jobs, concurrency=4))
