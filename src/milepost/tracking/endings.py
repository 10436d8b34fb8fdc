"""How a run ends in the record: the writes for each way in which its code may have stopped. Owns the mapping from an
outcome to a plan, for `track` and for workers alike; sends nothing.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, NamedTuple, Protocol

from milepost.core.change import Change
from milepost.core.encoding import RESULT_BYTES, one_line, to_json
from milepost.core.errors import InvalidInput, JobCancelled, JobReleased, JobTimedOut, LeaseLost, Stop
from milepost.core.job import FailureKind
from milepost.core.lifecycle import (
    plan_cancel_own,
    plan_complete,
    plan_crash,
    plan_fail,
    plan_log,
    plan_receipt,
    plan_release,
)
from milepost.core.retry import backoff
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.tracking.failures import Teller, asked_delay, of_exception
from milepost.tracking.pulse import Reporter, Unsent


class Ended(Reporter, Teller, Protocol):
    """A run whose code has stopped: a Run of this process, or what stands for one in a child process."""

    stops: list[Stop]


class Late(NamedTuple):
    """The receipt of a run that was told to stop before its end arrived: how it stopped, and the result that it had."""

    token: str
    how: str
    result: str | None = None

    def plan(self) -> Change:
        """The receipt as a change, of a new operation."""
        return plan_receipt(new_op(), self.token, self.how, confirmed=True, late_result=self.result)


class Ending(NamedTuple):
    """The writes that end a run; the last one is its end, and `late` replaces it when the job was ended meanwhile."""

    writes: list[Write]
    late: Late | None
    refused: InvalidInput | None = None
    """Why the result could not be kept, where that is how the run ends."""


def ending(
    run: Ended,
    unsent: Unsent,
    error: BaseException | None,
    *,
    result: Any = None,
    delay: int | None = None,
    how: str = "cooperative",
    kind: FailureKind = FailureKind.ERROR,
) -> Ending:
    """The end of a run whose code has returned (`error` None) or raised.

    `delay` is how many microseconds a retry waits, None for no retry; `how` is how a stop was brought about, for its
    receipt. A result that is not JSON fails the run as not_serialisable.
    """
    if error is None:
        try:
            return completed(run, unsent, None if result is None else to_json(result, "result", RESULT_BYTES))
        except InvalidInput as refused:
            known = of_exception(refused, run, FailureKind.NOT_SERIALISABLE)
            return failed(run, unsent, *known, name="InvalidInput")._replace(refused=refused)
    if isinstance(error, Stop):
        return stopped(run, unsent, error, how=how, delay=delay)
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        by = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else "its task"
        plan = plan_cancel_own(new_op(), run.token, unsent.report, by=by, why=f"{by} ended it")
        return _ending(run, unsent, plan, how)
    return failed(run, unsent, *of_exception(error, run, kind), delay=delay, name=type(error).__name__)


def retry_delay(error: BaseException | None, attempt: int) -> int:
    """The microseconds until the next attempt, if there is to be one: what a Retry asks for, or the usual wait."""
    asked = asked_delay(error)
    return int((backoff(attempt, random.random()) if asked is None else asked) * 1_000_000)


def completed(run: Ended, unsent: Unsent, result: str | None) -> Ending:
    """The run has done its work; `result` is JSON text."""
    unsent.learn()
    plan = plan_complete(new_op(), run.token, result, unsent.report)
    return _ending(run, unsent, plan, "already finished", result)


def failed(
    run: Ended, unsent: Unsent, line: str, failure: str, *, delay: int | None = None, name: str = "", why: str | None = None
) -> Ending:  # fmt: skip
    """The run has failed, with a one-line error and its dossier."""
    plan = plan_fail(new_op(), run.token, error=line, failure=failure, report=unsent.report, delay=delay, why=why)
    return _ending(run, unsent, plan, one_line(f"already failed: {name or line}", 200))


def crashed(run: Ended, unsent: Unsent, line: str, failure: str, crash_loop: str, last: int, name: str) -> Ending:
    """The child process of the run has died; `last` as in `plan_crash`."""
    plan = plan_crash(
        new_op(), run.token, error=line, failure=failure, crash_loop=crash_loop, last=last, report=unsent.report
    )
    return _ending(run, unsent, plan, one_line(f"already failed: {name}", 200))


def stopped(run: Ended, unsent: Unsent, error: Stop, *, how: str, delay: int | None = None) -> Ending:
    """The run has stopped because it was told to, or because its own code raised what tells others to."""
    reason = run.stops[0] if run.stops else error
    if not run.stops and isinstance(error, JobCancelled | LeaseLost):
        plan = plan_cancel_own(new_op(), run.token, unsent.report, by="its own code", why=one_line(error, 200))
    elif isinstance(reason, JobCancelled):
        plan = plan_receipt(new_op(), run.token, how, confirmed=True)
    elif isinstance(reason, JobReleased):
        plan = plan_release(new_op(), run.token, unsent.report)
    elif isinstance(reason, JobTimedOut):
        line, failure = of_exception(error if isinstance(error, JobTimedOut) else reason, run, FailureKind.TIMEOUT)
        plan = plan_fail(new_op(), run.token, error=line, failure=failure, report=unsent.report, delay=delay)
    else:
        return Ending([], None)
    return _ending(run, unsent, plan, how)


def _ending(run: Ended, unsent: Unsent, plan: Change, late: str, result: str | None = None) -> Ending:
    writes = list(unsent.writes)
    if unsent.lines is not None:
        writes.append(Write(run.job_id, plan_log(new_op(), run.token, unsent.lines), answer=False))
    writes.append(Write(run.job_id, plan, answer=False))
    return Ending(writes, Late(run.token, late, result))


def resignation(run: Ended, *, delay: int | None = None, stack: str | None = None) -> Ending | None:
    """What ends the run in the record while its code goes on past the grace time: its lease becomes a stopping one.

    None when the reason of its stop has ended the run in the record already.
    """
    reason = run.stops[0]
    if isinstance(reason, JobReleased):
        return Ending(
            [Write(run.job_id, plan_release(new_op(), run.token, run.report(), stopping=True), answer=False)], None
        )
    if isinstance(reason, JobTimedOut):
        line, failure = of_exception(reason, run, FailureKind.TIMEOUT, stack)
        plan = plan_fail(
            new_op(),
            run.token,
            error=line,
            failure=failure,
            report=run.report(),
            delay=delay,
            stopping=True,
            why="timeout",
        )
        return Ending([Write(run.job_id, plan, answer=False)], None)
    return None
