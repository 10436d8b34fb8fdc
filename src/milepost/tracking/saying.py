"""What a run says of itself, as the fields of a record. Owns the bounds of these, and that one which cannot be told, by whatever a
user's code has put there, keeps neither the others back nor the lease of the run. Knows no store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from milepost.core.encoding import one_line, to_json
from milepost.tracking.failures import masked, shown
from milepost.tracking.stages import every

if TYPE_CHECKING:
    from milepost.tracking.run import Run

log = logging.getLogger("milepost.tracking")

STAGES_BYTES = 1024 * 1024
CURSORS_BYTES = 8 * 1024 * 1024


def report_of(run: Run) -> dict[str, str]:
    """What a run says now. What cannot be told stays as it was last, and the log says so once."""
    said: dict[str, str] = {}
    for name, tell in _FIELDS:
        try:
            text = tell(run)
        except Exception as error:  # noqa: BLE001 - what a user's code has put there may fail in any way
            cannot_tell(run, name, error)
            if name in run.said:
                said[name] = run.said[name]
            continue
        if text is not None:
            said[name] = masked(text, run.masks) if run.masks and name in _MASKED else text
    run.said = said
    return said


def cannot_tell(run: Run, what: str, error: Exception) -> None:
    """Say once that something of a run cannot be told any more."""
    if what not in run.untold:
        run.untold.add(what)
        problem = shown(one_line(f"{type(error).__name__}: {one_line(error, 300)}", 400), run)
        run.log(f"its {what} cannot be told: {problem}", "warning")
        log.warning("job %s: its %s cannot be told: %s", run.job_id, what, problem)


def _progress(run: Run) -> str:
    return repr(round(run.fraction, 6))


def _message(run: Run) -> str | None:
    return run._message


def _stages(run: Run) -> str | None:
    if not run._stages:
        return None
    return to_json([stage.to_dict() for stage in every(run._stages)], "stages", STAGES_BYTES)


def _item_counts(run: Run) -> str | None:
    return run.ledger.text() if run.ledger else None


def _cursors(run: Run) -> str | None:
    cursors = {}
    for name, loop in tuple(run._loops.items()):
        try:
            cursor = loop.cursor()
        except Exception as error:  # noqa: BLE001 - the key of an item is the user's code
            cannot_tell(run, f"place in the loop {name!r:.80}", error)
            cursor = loop.known
        if cursor and _goes_on(run, name):
            cursors[name] = cursor
    for name, done in tuple(run._done_sets.items()):
        if _goes_on(run, name):
            cursors[name] = {"n": len(done), "done": sorted(done)}
    return to_json({**run._resume, **cursors}, "cursors", CURSORS_BYTES) if cursors else None


def _goes_on(run: Run, name: str) -> bool:
    """Whether a loop is inside of no item that is done by now."""
    place = run._places.get(name)
    return place is not None and not place.is_over


_FIELDS: tuple[tuple[str, Callable[[Run], str | None]], ...] = (
    ("progress", _progress),
    ("message", _message),
    ("stages", _stages),
    ("item_counts", _item_counts),
    ("cursors", _cursors),
)
_MASKED = frozenset({"message", "stages", "item_counts"})
