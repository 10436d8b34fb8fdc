"""The callers of a process that wait for a store."""

from __future__ import annotations

from contextlib import ExitStack

from milepost.stores.waiters import Waiters
from tests.collector import collect_within


def test_callers_begin_to_wait_while_others_are_notified() -> None:
    """Regression: on Python 3.11 a write raised "Set changed size during iteration" after its commit."""
    waiters = Waiters()
    with ExitStack() as waiting:

        def wait() -> None:
            waiting.enter_context(waiters.waiter(feed=True, blocking=True))

        for _ in range(50):
            wait()
        collect_within(lambda: waiters.notify(has_events=True, wakes_workers=True), wait)
