"""Let other code run where the garbage collector may run, as another thread may there."""

from __future__ import annotations

import gc
from collections.abc import Callable

_THRESHOLD = 60
"""Allocations after which the collector runs."""


class _Allocation:
    """One allocation that counts: lists and others come from a stock of freed ones."""


def collect_within(work: Callable[[], object], call: Callable[[], object]) -> None:
    """Repeat some work. Each time the collector runs after another one of its first allocations, and calls a function."""

    def on_collection(phase: str, facts: object) -> None:
        if phase == "start":
            call()

    before = gc.get_threshold()
    gc.freeze()  # so that a collection takes no time
    gc.callbacks.append(on_collection)
    gc.set_threshold(_THRESHOLD)
    try:
        for allocations in range(30):
            gc.disable()
            gc.collect(0)
            earlier = [_Allocation() for _ in range(_THRESHOLD - allocations)]
            gc.enable()
            work()
            del earlier
    finally:
        gc.callbacks.remove(on_collection)
        gc.set_threshold(*before)
        gc.enable()
        gc.unfreeze()
