"""The item ledger: counts of processed, failed and skipped items, and the keys of failed ones, within bounds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from milepost.core.serialization import to_json

MAX_FAILED_KEYS = 10_000
MAX_FIRST_ERRORS = 10
MAX_LEDGER_BYTES = 1024 * 1024
MAX_FAILED_KEYS_BYTES = MAX_LEDGER_BYTES - 32 * 1024
"""What the failed keys may take of that; the rest is for the first errors and the counts."""


NOT_REACHED = "no loop of this run reached an item with this key; run.each(..., key=...) needs the keys of run.item"


class ItemOutcome(NamedTuple):
    """The outcome of one item; `error` is the first line of its error, if it failed."""

    key: str
    error: str | None = None
    skipped: bool = False


class Ledger:
    """Thread-safe counts of items done, failed and skipped."""

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0
        self.skipped = 0
        self.failed_keys: list[str] = []
        self.first_errors: list[str] = []
        self._bytes_left = MAX_FAILED_KEYS_BYTES
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self.done or self.failed or self.skipped)

    def record(self, outcome: ItemOutcome) -> None:
        """Count the outcome of one item."""
        with self._lock:
            if outcome.error is not None:
                self.failed += 1
                self._keep(outcome.key)
                if len(self.first_errors) < MAX_FIRST_ERRORS:
                    self.first_errors.append(outcome.error)
            elif outcome.skipped:
                self.skipped += 1
            else:
                self.done += 1

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the counts of another ledger."""
        with self._lock:
            self.done += other["done"]
            self.failed += other["failed"]
            self.skipped += other["skipped"]
            for key in other["failed_keys"]:
                self._keep(key)
            self.first_errors.extend(other["first_errors"][: MAX_FIRST_ERRORS - len(self.first_errors)])

    def take_back(self, other: Mapping[str, Any]) -> None:
        """Subtract the counts of another ledger that was added before."""
        with self._lock:
            self.done -= other["done"]
            self.failed -= other["failed"]
            self.skipped -= other["skipped"]
            self.failed_keys = _without(self.failed_keys, other["failed_keys"])
            self.first_errors = _without(self.first_errors, other["first_errors"])
            self._bytes_left = MAX_FAILED_KEYS_BYTES - sum(_size(key) for key in self.failed_keys)

    def counts(self) -> dict[str, Any]:
        """Return the fields of `core.job.ItemCounts`."""
        with self._lock:
            return {
                "done": self.done,
                "failed": self.failed,
                "skipped": self.skipped,
                "failed_keys": list(self.failed_keys),
                "first_errors": list(self.first_errors),
            }

    def text(self) -> str:
        """Return the counts as JSON."""
        return to_json(self.counts(), "item_counts", MAX_LEDGER_BYTES)

    def _keep(self, key: str) -> None:
        if len(self.failed_keys) < MAX_FAILED_KEYS and (size := _size(key)) <= self._bytes_left:
            self.failed_keys.append(key)
            self._bytes_left -= size


class RepeatedItems:
    """The failed items that a job repeats for another one, and which of them its code has had."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = frozenset(keys)
        self._missing = dict.fromkeys(keys)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, key: str) -> bool:
        """Return whether an item is one of them, and note that the code has had it."""
        if key not in self._keys:
            return False
        with self._lock:
            self._missing.pop(key, None)
        return True

    def missed(self) -> list[ItemOutcome]:
        """Return the items that the code has not had, as failed ones."""
        with self._lock:
            return [ItemOutcome(key, f"{key[:80]}: {NOT_REACHED}") for key in self._missing]


class LoopItems:
    """The outcomes of one loop by item, so that the next attempt starts with those of the items that it skips."""

    def __init__(self) -> None:
        self._passed = Ledger()
        self._open: dict[Any, list[ItemOutcome | Mapping[str, Any]]] = {}
        self._lock = threading.Lock()

    def note(self, at: Any, what: ItemOutcome | Mapping[str, Any]) -> None:
        """Add what happened in item `at`: an outcome, or the counts of a nested loop in the last attempt."""
        with self._lock:
            self._open.setdefault(at, []).append(what)

    def inherit(self, kept: Mapping[str, Any]) -> None:
        """Start with the counts of the items that this attempt skips."""
        self._passed.add(kept)

    def passed(self, is_over: Callable[[Any], bool]) -> dict[str, Any] | None:
        """Return the counts of the finished items, or None if there are none. They stay finished."""
        with self._lock:
            for at in [at for at in self._open if is_over(at)]:
                for what in self._open.pop(at):
                    self._passed.record(what) if isinstance(what, ItemOutcome) else self._passed.add(what)
        return self._passed.counts() if self._passed else None


class TrackedItem:
    """Guards the work on one item: ``with run.item(doc): embed(doc)``.

    An Exception is recorded as a failed item and the loop continues; a RunStop propagates.
    """

    __slots__ = ("_record", "_skipped", "error", "key")

    def __init__(self, key: str, record: Callable[[str, BaseException | None, bool], None]) -> None:
        self._record = record
        self._skipped = False
        self.key = key
        self.error: Exception | None = None

    def skip(self) -> None:
        """Count this item as skipped rather than done."""
        self._skipped = True

    def __enter__(self) -> TrackedItem:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if error is None:
            self._record(self.key, None, self._skipped)
            return False
        if isinstance(error, Exception):
            self.error = error
            self._record(self.key, error, False)
            return True
        return False


def _size(key: str) -> int:
    return len(to_json(key, "key").encode()) + 1


def _without(texts: list[str], others: list[str]) -> list[str]:
    """Return `texts` without `others`, each removed as often as it occurs there."""
    left = Counter(others)
    kept = []
    for text in texts:
        if left[text]:
            left[text] -= 1
        else:
            kept.append(text)
    return kept
