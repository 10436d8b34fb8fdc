"""The conformance suite on SQLite."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from milepost.stores.sqlite import SQLiteStore
from milepost.testing import FrozenClock
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.clocks import Outages, SetClocks
from milepost.testing.conformance.expiry import Expiry
from milepost.testing.conformance.harness import Factory


class TestSQLiteStore(Conformance):
    @pytest.fixture
    def blocking(self, tmp_path: Path) -> Factory:
        numbers = itertools.count(1)
        return lambda: SQLiteStore(tmp_path / f"blocking{next(numbers)}.db", blocking=True, synchronous="NORMAL")

    @pytest.fixture
    def asynchronous(self, tmp_path: Path) -> Factory:
        numbers = itertools.count(1)
        return lambda: SQLiteStore(tmp_path / f"async{next(numbers)}.db", blocking=False, synchronous="NORMAL")


class TestSQLiteStoreOnMovedClock(Outages, SetClocks, Expiry):
    @pytest.fixture
    def clock(self) -> FrozenClock:
        return FrozenClock()

    @pytest.fixture
    def blocking(self, tmp_path: Path, clock: FrozenClock) -> Factory:
        return lambda: SQLiteStore(tmp_path / "blocking.db", blocking=True, synchronous="NORMAL", clock=clock)

    @pytest.fixture
    def asynchronous(self, tmp_path: Path, clock: FrozenClock) -> Factory:
        return lambda: SQLiteStore(tmp_path / "async.db", blocking=False, synchronous="NORMAL", clock=clock)
