"""Waits of a run during an outage of the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from milepost.core.errors import OutcomeUnknownError, StoreUnavailableError
from milepost.stores.protocol import Store

if TYPE_CHECKING:
    from milepost.run.run import Run

T = TypeVar("T")

RETRY_INTERVAL = 0.5


async def through_outages(store: Store, run: Run, ask: Callable[[], Awaitable[T]], *, until_stopped: bool) -> T:
    """Return what `ask` returns. With `until_stopped` an outage is retried until the run is stopped; else it is raised."""
    while True:
        try:
            return await ask()
        except (StoreUnavailableError, OutcomeUnknownError) as error:
            if not until_stopped:
                raise
            await pause(store, run, error)


async def pause(store: Store, run: Run, error: Exception) -> None:
    """Wait until the next try. Raises the RunStop of a run that is to stop."""
    if run._stop_reasons:
        raise run._stop_reasons[0] from error
    if store.blocking:
        time.sleep(RETRY_INTERVAL)  # noqa: ASYNC251 - a blocking store never suspends
    else:
        await asyncio.sleep(RETRY_INTERVAL)
