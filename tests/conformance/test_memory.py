"""The memory store conforms, on a clock that stands still."""

from __future__ import annotations

import pytest

from milepost.stores.memory import MemoryStore
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
