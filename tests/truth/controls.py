"""Wrong rules of resuming, put into this process: with each of them the corpus must fail."""

from __future__ import annotations

from typing import Any

from milepost.run.cursor import Cursor
from milepost.run.item_content import NOTHING
from milepost.run.run import Run


def apply(control: str) -> None:
    """Put a wrong rule in the place of the right one."""
    {"skip always": _skip_always, "restore early": _restore_early, "snapshot at close": _snapshot_at_close}[control]()


def _skip_always() -> None:
    """Let each loop pass over the items that an earlier attempt finished, as the first version did."""
    each = Run.each

    def skipping(self: Run, items: Any, **how: Any) -> Any:
        return each(self, items, **{**how, "resume": how.get("state") is None})

    Run.each = skipping  # type: ignore[method-assign] # that is the control


def _restore_early() -> None:
    """Let `run.state()` restore values, so that code before the loop runs on restored ones."""
    state = Run.state

    def restoring(self: Run, *kind: Any, **values: Any) -> Any:
        target = state(self, *kind, **values)
        kept = next((kept["state"] for kept in self._loops.earlier.values() if "state" in kept), None)
        if kept is not None:
            self._loops.states[-1].restore(kept)
            self._loops.states[-1].restore = lambda text: None  # type: ignore[method-assign] # not again in the loop
        return target

    Run.state = restoring  # type: ignore[method-assign,assignment] # that is the control


def _snapshot_at_close() -> None:
    """Let a loop that is left in the middle of an item take a snapshot."""

    def leave_at(self: Cursor, n: int, last: Any, item: Any) -> None:
        self._snapshots._next_at.clear()
        if n:
            self.take(n, last)
        assert item is not NOTHING or n >= 0

    Cursor.leave_at = leave_at  # type: ignore[method-assign] # that is the control
