"""Serialise the report of a run within size limits, and buffer its log lines.

A field that fails to serialise, because of a value of the user's code, keeps its last value. The other fields, and the
renewal of the lease, are still sent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from milepost.core.serialization import safe_str, to_json
from milepost.run.crash_report import masked
from milepost.run.loops import CHECKPOINT, cursors_of, snapshots_of
from milepost.run.stages import flatten_stages

if TYPE_CHECKING:
    from milepost.run.run import Run

log = logging.getLogger("milepost.run")

MAX_BUFFERED_LINES = 5000
MAX_BUFFERED_CHARACTERS = 4 * 1024 * 1024
"""All of them go into one request."""
_BYTES = 64 * 1024 * 1024


LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


def log_level(level: object) -> str:
    """Return the level of a log line in lower case. An unknown one is logged, and its line has the level info."""
    if level in LOG_LEVELS:
        return str(level)
    if isinstance(level, str) and level.lower() in LOG_LEVELS:
        return level.lower()
    log.warning("run.log: the level %.40r is not one of %s; using info", safe_str(level), ", ".join(LOG_LEVELS))
    return "info"


def log_event(text: str, level: str) -> str:
    """Return one log line with the current time, as the JSON of a log event."""
    return to_json({"lines": [{"at": datetime.now(UTC).isoformat(), "level": level, "text": text}]}, "log", _BYTES)


class LogBuffer:
    """Log lines in order. Lines beyond the limits are counted, and the count is logged. Thread-safe."""

    __slots__ = ("_lock", "_lost", "_size", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Mapping[str, Any]] = []
        self._lost = 0
        self._size = 0

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines: the time, level and text of each, and facts for programs."""
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


STAGES_BYTES = 1024 * 1024
CURSORS_BYTES = 8 * 1024 * 1024
STATE_TEXT_BYTES = 16 * 1024 * 1024
"""The bound of the text that holds the snapshots with their ledgers; that of the state itself is `state.STATE_BYTES`."""


def build_report(run: Run) -> dict[str, str]:
    """Return the report fields of a run. A field that cannot be serialised keeps its last value and is logged once."""
    fields: dict[str, str] = {}
    for name, read in _FIELDS:
        try:
            text = read(run)
        except Exception as error:  # noqa: BLE001 - user values may raise anything
            run._log_unreportable(name, error)
            if name in run._last_report:
                fields[name] = run._last_report[name]
            continue
        if text is not None:
            fields[name] = masked(text, run._secret_values) if run._secret_values and name in _MASKED else text
    run._last_report = fields
    return fields


def _progress(run: Run) -> str:
    return repr(round(run._shown_fraction, 6))


def _progress_known(run: Run) -> str:
    return "1" if run.progress_known else "0"


def _message(run: Run) -> str | None:
    return run._message


def _stages(run: Run) -> str | None:
    if not run._stages:
        return None
    return to_json([stage.to_dict() for stage in flatten_stages(run._stages)], "stages", STAGES_BYTES)


def _item_counts(run: Run) -> str | None:
    return run.ledger.text() if run.ledger else None


def _cursors(run: Run) -> str | None:
    loops = run._loops
    is_outside = loops.checkpoint_in_loop is False
    if not loops.each and not loops.maps and not is_outside:
        return None
    cursors = cursors_of(run)
    if loops.checkpoint_was_in_loop if loops.checkpoint_in_loop is None else loops.checkpoint_in_loop:
        cursors[CHECKPOINT] = {"in_loop": True}
    is_mark_kept = loops.checkpoint_was_in_loop or "cursors" in run._last_report
    if not cursors and not (is_outside and is_mark_kept):
        return None
    return to_json({**loops.not_taken_up(with_state=False), **cursors}, "cursors", CURSORS_BYTES)


def _state(run: Run) -> str | None:
    """Return the snapshots of loops with state, and those of the last attempt that no loop has taken up yet."""
    snapshots = {**run._loops.not_taken_up(with_state=True), **snapshots_of(run)}
    return to_json(snapshots, "state", STATE_TEXT_BYTES) if snapshots or "state" in run._last_report else None


def usage_text(run: Run) -> str | None:
    """Return the usage of the job as it is stored, or None if this run has added nothing."""
    return run._usage.text() if run._usage is not None else None


def _state_error(run: Run) -> str | None:
    """Return why the newest state was not kept; empty if it was."""
    return run._loops.snapshots.error or ("" if "state_error" in run._last_report else None)


_FIELDS: tuple[tuple[str, Callable[[Run], str | None]], ...] = (
    ("progress", _progress),
    ("progress_known", _progress_known),
    ("message", _message),
    ("stages", _stages),
    ("item_counts", _item_counts),
    ("usage", usage_text),
    ("cursors", _cursors),
    ("state", _state),
    ("state_error", _state_error),
)
_MASKED = frozenset({"message", "stages", "item_counts"})
