"""To wait for what other processes do, and to freeze one. Owns the patience: hang guards, never aims."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from milepost.core.errors import StoreError

PATIENCE = 60.0


def until(what: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Wait until something is true; what it is. A store that is away is not true."""
    deadline = time.monotonic() + within
    while True:
        try:
            if found := what():
                return found
        except StoreError:
            pass
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def freeze(pid: int, url: str) -> None:
    """SIGSTOP a process that uses the store of that URL, at a moment when it holds no lock of a SQLite file.

    Frozen inside a transaction it would keep every other process from writing, and from taking over what it runs.
    """

    def is_frozen() -> bool:
        os.kill(pid, signal.SIGSTOP)
        if is_writable(url):
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    until(is_frozen)


def is_writable(url: str) -> bool:
    """Whether nobody holds the lock of a SQLite file for long; of another store there is none."""
    if not url.startswith("sqlite"):
        return True
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.2, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True
