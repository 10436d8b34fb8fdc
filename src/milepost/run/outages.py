"""Waits of a run during an outage of the store."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from milepost.stores.protocol import Store

if TYPE_CHECKING:
    from milepost.run.run import Run

RETRY_INTERVAL = 0.5


async def pause(store: Store, run: Run, error: Exception) -> None:
    """Wait until the next try. Raises the RunStop of a run that is to stop."""
    if run._stop_reasons:
        raise run._stop_reasons[0] from error
    if store.blocking:
        time.sleep(RETRY_INTERVAL)  # noqa: ASYNC251 - a blocking store never suspends
    else:
        await asyncio.sleep(RETRY_INTERVAL)
