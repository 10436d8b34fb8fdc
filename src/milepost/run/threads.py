"""Waits for calls in threads that a run's code started from an event loop: until then the code has not stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from milepost.run.run import Run


async def wait_for_threads(run: Run) -> bool:
    """Wait until all calls have returned; return False if this task is cancelled first, as its loop ends."""
    while calls := tuple(run._threads):
        try:
            done, _ = await asyncio.wait([asyncio.wrap_future(call) for call in calls])
        except asyncio.CancelledError:
            return False
        for call in done:
            call.cancelled() or call.exception()  # raised in the code that awaits them, if any does
    return True
