"""The log lines of a run that wait to be sent. Owns their bound and their form; knows no run and no store."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from milepost.core.encoding import to_json

LINES_WAITING = 5000
_BYTES = 64 * 1024 * 1024


class Lines:
    """Lines in order; those for which there is no room are counted, and the count is told. For any thread."""

    __slots__ = ("_lock", "_lost", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Mapping[str, str]] = []
        self._lost = 0

    def add(self, lines: Iterable[Mapping[str, str]]) -> None:
        """Let lines wait: when they were said, their level and their text."""
        with self._lock:
            for line in lines:
                if len(self._waiting) < LINES_WAITING:
                    self._waiting.append(line)
                else:
                    self._lost += 1

    def take(self) -> str | None:
        """The lines since the last call, as JSON; None when there are none."""
        with self._lock:
            lines, self._waiting = self._waiting, []
            lost, self._lost = self._lost, 0
        if lost:
            text = f"{lost} log lines were dropped"
            lines.append({"at": datetime.now(UTC).isoformat(), "level": "warning", "text": text})
        return to_json({"lines": lines}, "log", _BYTES) if lines else None
