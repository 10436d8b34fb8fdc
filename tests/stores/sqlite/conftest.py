"""Fixtures: a database file per test, and stores on it that are closed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sync_bridge import run_sync

Make = Callable[..., SQLiteStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file that does not exist yet."""
    return tmp_path / "jobs.db"


@pytest.fixture
def make(path: Path) -> Iterator[Make]:
    """Yield a function that opens blocking stores on the test's file, or on another `path`."""
    stores: list[SQLiteStore] = []

    def open_store(**options: Any) -> SQLiteStore:
        options = {"path": path, "synchronous": "NORMAL", **options}
        stores.append(SQLiteStore(options.pop("path"), **options))
        return stores[-1]

    yield open_store
    for store in stores:
        if store.blocking:
            run_sync(store.close())
