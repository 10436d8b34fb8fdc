"""A heartbeat that waits for the store until a test releases it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from milepost.stores.protocol import Store, Write
from tests.waiting import PATIENCE


class HeldHeartbeat:
    """Holds the heartbeat that sends the message "older", before its request or before its reply, until `release`."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, *, before: str) -> None:
        self.began = threading.Event()
        self._released = threading.Event()
        self.is_held = False
        real = store.heartbeat

        async def heartbeat(writes: Sequence[Write], *more: Any) -> Any:
            is_older = not self.began.is_set() and any("older" in write.change.values for write in writes)
            if is_older and before == "request":
                self._hold()
            reply = await real(writes, *more)
            if is_older and before == "reply":
                self._hold()
            return reply

        monkeypatch.setattr(store, "heartbeat", heartbeat)

    def _hold(self) -> None:
        self.is_held = True
        self.began.set()
        self._released.wait(PATIENCE)
        self.is_held = False

    def release(self) -> None:
        """Let it continue."""
        self._released.set()
