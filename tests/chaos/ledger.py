"""The ledger: what handlers and clients saw, one JSON line each, in a file outside the store.

A line is one `write` to a file opened with O_APPEND, so lines of many processes never mix and a killed process leaves
no half of one. Times are microseconds since 1970, of the one clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def now() -> int:
    """Return the time of the ledger's clock."""
    return time.time_ns() // 1000


class Ledger:
    """Appends lines; safe from any thread and any process."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, do: str, **what: Any) -> None:
        """Append a line: what happened in which process, and when."""
        line = {"do": do, "at": now(), "pid": os.getpid(), **what}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read(path: str | Path) -> list[Line]:
    """Return all lines, in the order in which they were written."""
    return list(_lines(Path(path)))


def _lines(path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)
