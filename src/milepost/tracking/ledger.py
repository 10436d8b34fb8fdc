"""What became of the items of a run: counts, and the keys of those that failed. Owns the bounds; knows no store."""

from __future__ import annotations

import threading
from types import TracebackType

from milepost.core.encoding import one_line, safe_str, to_json

FAILED_KEYS_MAX = 10_000
FIRST_ERRORS = 10
LEDGER_BYTES = 1024 * 1024
FAILED_KEYS_BYTES = LEDGER_BYTES - 32 * 1024
"""What the failed keys may take of that; the rest is for the first errors and the counts."""


class Ledger:
    """Counts of items done, failed and skipped; thread-safe."""

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0
        self.skipped = 0
        self.failed_keys: list[str] = []
        self.first_errors: list[str] = []
        self._room = FAILED_KEYS_BYTES
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self.done or self.failed or self.skipped)

    def record(self, key: str, error: BaseException | None = None, *, skipped: bool = False) -> None:
        """Write down what became of one item."""
        with self._lock:
            if error is not None:
                self.failed += 1
                if len(self.failed_keys) < FAILED_KEYS_MAX:
                    size = len(to_json(key, "key").encode()) + 1
                    if size <= self._room:
                        self.failed_keys.append(key)
                        self._room -= size
                if len(self.first_errors) < FIRST_ERRORS:
                    self.first_errors.append(one_line(f"{key}: {type(error).__name__}: {safe_str(error)}", 300))
            elif skipped:
                self.skipped += 1
            else:
                self.done += 1

    def text(self) -> str:
        """The ledger as JSON, as `core.job.ItemCounts` reads it."""
        with self._lock:
            counts = {
                "done": self.done,
                "failed": self.failed,
                "skipped": self.skipped,
                "failed_keys": self.failed_keys,
                "first_errors": self.first_errors,
            }
            return to_json(counts, "item_counts", LEDGER_BYTES)


class Entry:
    """One item of a loop that survives bad items: ``with run.item(doc): embed(doc)``.

    An Exception is written into the ledger and the loop goes on; a Stop passes.
    """

    __slots__ = ("_ledger", "_skipped", "error", "key")

    def __init__(self, ledger: Ledger, key: str) -> None:
        self._ledger = ledger
        self._skipped = False
        self.key = key
        self.error: Exception | None = None

    def skip(self) -> None:
        """Count this item as skipped rather than done."""
        self._skipped = True

    def __enter__(self) -> Entry:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if error is None:
            self._ledger.record(self.key, skipped=self._skipped)
            return False
        if isinstance(error, Exception):
            self.error = error
            self._ledger.record(self.key, error)
            return True
        return False
