"""Logs the start and the end of an outage of the store, once each."""

from __future__ import annotations

import logging
import time

from milepost.core.errors import StoreError


class Outage:
    """The outages of a store as one thread or worker sees them.

    `consequence` tells in the log what happens to its work meanwhile.
    """

    def __init__(self, log: logging.Logger, consequence: str, subject: str = "") -> None:
        self._log = log
        self._consequence = consequence
        self._subject = f"{subject}: " if subject else ""
        self._since: float | None = None

    @property
    def is_active(self) -> bool:
        """Return whether the last request failed."""
        return self._since is not None

    def failed(self, error: StoreError) -> None:
        """Note that the store did not reply."""
        if self._since is None:
            self._since = time.monotonic()
            self._log.warning("%sstore unavailable; %s: %s", self._subject, self._consequence, error)

    def answered(self) -> None:
        """Note that the store replied."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            self._since = None
            self._log.warning("%sstore available again after %.0f s", self._subject, seconds)
