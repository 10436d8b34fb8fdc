"""The result of a run in the form in which its record keeps it: as JSON, or as text with the reason why it is not JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.result_json import CONVERT, result_json
from milepost.core.serialization import ERROR_BYTES, MESSAGE_BYTES, printable, safe_str, single_line
from milepost.run.crash_report import redacted

if TYPE_CHECKING:
    from milepost.run.run import Run


MAX_LEVELS = 64


def bounded_repr(value: Any, limit: int) -> str:
    """Return the first `limit` characters of `repr(value)`. Never raises."""
    writer = _Writer(limit)
    writer.write(value, 0)
    return "".join(writer.parts)[:limit]


class _Writer:
    """Writes the repr of containers part by part, until the limit is reached."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self._left = limit

    def write(self, value: Any, level: int) -> None:
        """Write a value."""
        kind = type(value)
        if level > MAX_LEVELS:
            self._add("...")
        elif kind is dict:
            self._all("{", value.items(), "}", level, pairs=True)
        elif kind is list:
            self._all("[", value, "]", level)
        elif kind is tuple:
            self._all("(", value, ",)" if len(value) == 1 else ")", level)
        elif kind in (set, frozenset) and value:
            head, tail = ("{", "}") if kind is set else ("frozenset({", "})")
            self._all(head, value, tail, level)
        else:
            self._add(_repr(value[: self._left + 1] if kind in (str, bytes) else value))

    def _all(self, head: str, values: Iterable[Any], tail: str, level: int, *, pairs: bool = False) -> None:
        self._add(head)
        for position, value in enumerate(values):
            if self._left <= 0:
                return
            if position:
                self._add(", ")
            if pairs:
                self.write(value[0], level + 1)
                self._add(": ")
                value = value[1]
            self.write(value, level + 1)
        self._add(tail)

    def _add(self, text: str) -> None:
        self.parts.append(text[: self._left + 1])
        self._left -= len(text)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - any user object may stand here
        return f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"


TEXT_BYTES = ERROR_BYTES
MARGIN = 1024
"""Characters of a text that is cut which are left out as well, because a secret may be cut there."""


class JobResult(NamedTuple):
    """The result of a run: JSON, or `error` and `text` if it could not be stored as JSON."""

    json: str | None = None
    error: str | None = None
    text: str | None = None


NO_RESULT = JobResult()


def job_result(value: Any, run: Run) -> JobResult:
    """Return what the code of a run has returned, and log what was lost. Never raises.

    Call it while the heartbeat still reports the run, so that the log line arrives and the lease is renewed.
    """
    if value is None:
        return NO_RESULT
    try:
        text, nulls = result_json(value)
    except InvalidInputError as refused:
        problem = str(refused)
    except Exception as error:  # noqa: BLE001 - code of the values may raise anything
        problem = f"result: its conversion to JSON raised {type(error).__name__}: {safe_str(error)}; {CONVERT}"
    else:
        if nulls:
            others = f" and {len(nulls) - 1} more" if len(nulls) > 1 else ""
            run.log(f"stored as null, because JSON has no NaN or infinity: {nulls[0]}{others}", "warning")
        return JobResult(text)
    problem = single_line(redacted(problem, run), MESSAGE_BYTES)
    run.log(f"result not stored: {problem}", "warning")
    return JobResult(error=problem, text=_text(value, run))


def _text(value: Any, run: Run) -> str:
    """Return the redacted repr of a result, cut with a mark."""
    margin = max([MARGIN, *map(len, run._secret_values)])
    raw = bounded_repr(value, TEXT_BYTES + margin)
    shown = redacted(raw, run)
    if len(raw) == TEXT_BYTES + margin:
        shown = shown[: max(0, len(shown) - margin)] + "..."
    return printable(shown, TEXT_BYTES)
