"""The conformance suite on the memory store with a frozen clock."""

from __future__ import annotations

import pytest

from milepost.stores.memory.store import MemoryStore
from milepost.testing import FrozenClock
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.harness import Factory


class TestMemoryStore(Conformance):
    @pytest.fixture
    def clock(self) -> FrozenClock:
        return FrozenClock()

    @pytest.fixture
    def blocking(self, clock: FrozenClock) -> Factory:
        return lambda: MemoryStore(blocking=True, clock=clock)

    @pytest.fixture
    def asynchronous(self, clock: FrozenClock) -> Factory:
        return lambda: MemoryStore(blocking=False, clock=clock)
