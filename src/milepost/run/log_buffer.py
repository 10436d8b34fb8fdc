"""The log lines of a run that are not sent yet, bounded in number and size."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from milepost.core.serialization import to_json

MAX_BUFFERED_LINES = 5000
MAX_BUFFERED_CHARACTERS = 4 * 1024 * 1024
"""All of them go into one request."""
_BYTES = 64 * 1024 * 1024


def log_event(text: str, level: str) -> str:
    """Return one log line with the current time, as the JSON of a log event."""
    return to_json({"lines": [{"at": datetime.now(UTC).isoformat(), "level": level, "text": text}]}, "log", _BYTES)


class LogBuffer:
    """Log lines in order. Lines beyond the limits are counted, and the count is logged. Thread-safe."""

    __slots__ = ("_lock", "_lost", "_size", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Mapping[str, str]] = []
        self._lost = 0
        self._size = 0

    def add(self, lines: Iterable[Mapping[str, str]]) -> None:
        """Add lines: the time, level and text of each."""
        with self._lock:
            for line in lines:
                if len(self._waiting) < MAX_BUFFERED_LINES and self._size < MAX_BUFFERED_CHARACTERS:
                    self._waiting.append(line)
                    self._size += len(line["text"])
                else:
                    self._lost += 1

    def take(self) -> str | None:
        """Return the lines since the last call, as JSON; None if there are none."""
        with self._lock:
            lines, self._waiting, self._size = self._waiting, [], 0
            lost, self._lost = self._lost, 0
        if lost:
            text = f"{lost} log lines dropped"
            lines.append({"at": datetime.now(UTC).isoformat(), "level": "warning", "text": text})
        return to_json({"lines": lines}, "log", _BYTES) if lines else None
