"""Calls on a Redis store that the tests of its client and of its connections make."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from milepost.core import transitions as plans
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.redis import RedisStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import caller_job


def create(store: Store, job_id: str, **fields: str) -> Write:
    """Return the write that creates a job."""
    return Write(job_id, plans.plan_create(caller_job(**fields), new_operation_id()))


def run(store: RedisStore, work: Callable[[], object]) -> object:
    """Run a coroutine of a blocking or an async store."""
    if store.blocking:
        return run_sync(work())  # type: ignore[arg-type]

    async def whole() -> object:
        try:
            return await work()  # type: ignore[misc]
        finally:
            await store.close()

    return asyncio.run(whole())
