"""Runs scenarios of the conformance suite on a faulty store."""

from __future__ import annotations

from milepost.stores.memory.store import MemoryStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from milepost.testing.conformance.harness import Scenarios, StoreFixture, scenarios_of


def failing_scenarios(kind: type[MemoryStore], *classes: type[Scenarios]) -> set[str]:
    """Return the names of the scenarios of these classes that fail on a store."""
    found = set()
    for cls in classes:
        for name, scenario, values in scenarios_of(cls):
            clock = FrozenClock()
            try:
                run_sync(scenario(None, StoreFixture(kind(clock=clock), clock), **values))
            except AssertionError:
                found.add(name)
    return found
