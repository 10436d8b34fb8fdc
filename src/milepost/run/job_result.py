"""The result of a run in the form in which its record keeps it: as JSON, or as text with the reason why it is not JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.core.bounded_repr import bounded_repr
from milepost.core.errors import InvalidInputError
from milepost.core.result_json import CONVERT, result_json
from milepost.core.serialization import ERROR_BYTES, MESSAGE_BYTES, printable, safe_str, single_line
from milepost.run.crash_report import redacted

if TYPE_CHECKING:
    from milepost.run.run import Run

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
