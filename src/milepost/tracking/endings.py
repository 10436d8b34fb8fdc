"""How a run ends in the record: the writes for each way in which its code may have stopped. Owns the mapping from an
outcome to a plan, for `track` and for workers alike; sends nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from milepost.core.change import Change
from milepost.core.encoding import RESULT_BYTES, one_line, to_json
from milepost.core.errors import InvalidInput, JobCancelled, JobReleased, JobTimedOut, LeaseLost, Stop
from milepost.core.job import FailureKind
from milepost.core.lifecycle import plan_cancel_own, plan_complete, plan_fail, plan_log, plan_receipt, plan_release
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.tracking.failures import of_exception
from milepost.tracking.pulse import Unsent
from milepost.tracking.run import Run


class Ending(NamedTuple):
    """The writes that end a run; the last one is its end, and `late` replaces it when the job was ended meanwhile."""

    writes: list[Write]
    late: Change | None


def ending(
    run: Run,
    unsent: Unsent,
    error: BaseException | None,
    *,
    result: Any = None,
    delay: int | None = None,
    how: str = "cooperative",
) -> Ending:
    """The end of a run whose code has returned (`error` None) or raised.

    `delay` is how many microseconds a retry waits, None for no retry; `how` is how a stop was brought about, for its
    receipt. A result that is not JSON fails the run as not_serialisable.
    """
    token, report = run.token, unsent.report
    text: str | None = None
    kind = FailureKind.ERROR
    if error is None and result is not None:
        try:
            text = to_json(result, "result", RESULT_BYTES)
        except InvalidInput as refused:
            error, delay, kind = refused, None, FailureKind.NOT_SERIALISABLE
    match error:
        case None:
            plan = plan_complete(new_op(), token, text, report)
        case JobCancelled():
            plan = plan_receipt(new_op(), token, how, confirmed=True)
        case JobReleased():
            plan = plan_release(new_op(), token, report)
        case LeaseLost():
            return Ending([], None)
        case KeyboardInterrupt() | asyncio.CancelledError():
            by = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else "its task"
            plan = plan_cancel_own(new_op(), token, report, by=by, why=f"{by} ended it")
        case _:
            kind = FailureKind.TIMEOUT if isinstance(error, JobTimedOut) else kind
            line, failure = of_exception(error, run, kind)
            plan = plan_fail(new_op(), token, error=line, failure=failure, report=report, delay=delay)
    late = plan_receipt(new_op(), token, _late(error, how), confirmed=True, late_result=text)
    return Ending([*unsent.writes, *_log(run, unsent), Write(run.job_id, plan)], late)


def _log(run: Run, unsent: Unsent) -> list[Write]:
    if unsent.lines is None:
        return []
    return [Write(run.job_id, plan_log(new_op(), run.token, unsent.lines), answer=False)]


def _late(error: BaseException | None, how: str) -> str:
    """How code has stopped that did not stop for its cancel: it had finished, or it failed on its own."""
    if error is None:
        return "already finished"
    if isinstance(error, Stop | KeyboardInterrupt | asyncio.CancelledError):
        return how
    return one_line(f"already failed: {type(error).__name__}", 200)
