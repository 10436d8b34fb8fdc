"""The outcome of a run: the writes that end it in the record."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from milepost.core.activity import stated_duration
from milepost.core.errors import (
    JobCancelled,
    JobPaused,
    JobReleased,
    JobSuspended,
    JobTimedOut,
    LeaseLost,
    RunStop,
)
from milepost.core.job import FailureKind
from milepost.core.serialization import single_line
from milepost.core.transitions import (
    plan_complete,
    plan_complete_without_result,
    plan_crash,
    plan_fail,
    plan_log,
    plan_receipt,
    plan_release,
    plan_self_cancel,
    plan_stopped_for_pause,
    plan_suspend,
)
from milepost.core.transitions.change import Change
from milepost.run.crash_report import masked_json, masked_line, report_exception
from milepost.run.heartbeat_state import PendingReport
from milepost.run.job_result import JobResult
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import ApplyResult, Write, WriteResult

if TYPE_CHECKING:
    from milepost.run.run import Run


log = logging.getLogger("milepost.run")


class LateReceipt(NamedTuple):
    """The receipt of a run that was stopped before its outcome was written."""

    token: str
    how: str
    result: str | None = None
    usage: str | None = None

    def plan(self) -> Change:
        """Return the receipt as a transition with a new operation id."""
        return plan_receipt(
            new_operation_id(), self.token, self.how, confirmed=True, late_result=self.result, usage=self.usage
        )


class RunOutcome(NamedTuple):
    """The writes that end a run. The last one is the outcome; `late` replaces it if the job has ended already."""

    writes: list[Write]
    late: LateReceipt | None
    on_end: Callable[[WriteResult], None] | None = None
    """Is called with the reply, which has the ended job, once the store has accepted the outcome."""

    def answered(self, on_end: Callable[[WriteResult], None]) -> RunOutcome:
        """Return the outcome with this `on_end`."""
        if not self.writes:
            return self
        return self._replace(writes=[*self.writes[:-1], self.writes[-1]._replace(answer=True)], on_end=on_end)

    async def write(
        self, apply: Callable[[Sequence[Write]], Awaitable[ApplyResult]], more: Sequence[Write] = ()
    ) -> tuple[WriteResult | None, WriteResult | None]:
        """Write the outcome, with `more` writes, or the receipt if the job has ended already; return both replies."""
        if not self.writes:
            return None, None
        reply = (await apply([*self.writes, *more])).outcomes[len(self.writes) - 1]
        if reply.accepted and self.on_end is not None:
            self.on_end(reply)
        if reply.accepted or self.late is None:
            return reply, None
        return reply, (await apply([Write(self.writes[-1].job_id, self.late.plan())])).outcomes[0]


def completed(run: Run, pending: PendingReport, result: JobResult, queue_result: str | None = None) -> RunOutcome:
    """Return the outcome of a run that completed; `queue_result` is as in `plan_complete`."""
    pending.record_profile()
    text, operation_id = result.json, new_operation_id()
    if run._secret_values:
        text = text and masked_json(text, run._secret_values)
        queue_result = queue_result and masked_json(queue_result, run._secret_values)
    more = {"queue_result": queue_result, "open_children": str(run._open_children) if run._open_children else None}
    if result.error is None:
        plan = plan_complete(operation_id, run.token, text, pending.report, **more)
    else:
        log.warning("job %s (%s): result not stored: %s", run.job_id, run.job_type, result.error)
        plan = plan_complete_without_result(
            operation_id, run.token, result.error, result.text or "", pending.report, **more
        )
    return _ending(run, pending, plan, "already_finished", text)


def committed(run: Run, pending: PendingReport, result: Write) -> RunOutcome:
    """Return the outcome of a run that has committed its result, which is the same write: it has no second effect."""
    pending.record_profile()
    return RunOutcome([result], LateReceipt(run.token, "already_finished", usage=pending.usage))


def failed(
    run: Run, pending: PendingReport, line: str, failure: str, *, delay: int | None = None, name: str = "",
    how: str = "cooperative",
) -> RunOutcome:  # fmt: skip
    """Return the outcome of a run that failed, with a one-line error and its crash report."""
    plan = plan_fail(
        new_operation_id(),
        run.token,
        error=line,
        failure=failure,
        report=pending.report,
        delay=delay,
        start=_unused_start(run, how),
    )
    return _ending(run, pending, plan, single_line(f"already failed: {name or line}", 200))


def interrupted(run: Run, pending: PendingReport, by: str, how: str) -> RunOutcome:
    """Return the outcome of a run that was cancelled `by` Ctrl-C or the cancellation of its task."""
    plan = plan_self_cancel(new_operation_id(), run.token, pending.report, by=by, why=f"stopped by {by}")
    return _ending(run, pending, plan, how)


def crashed(
    run: Run, pending: PendingReport, line: str, failure: str, crash_loop: str, last: int, name: str
) -> RunOutcome:
    """Return the outcome of a run whose child process died; `last` as in `plan_crash`."""
    plan = plan_crash(
        new_operation_id(),
        run.token,
        error=line,
        failure=failure,
        crash_loop=crash_loop,
        last=last,
        report=pending.report,
    )
    return _ending(run, pending, plan, single_line(f"already failed: {name}", 200))


def postponed(
    run: Run, pending: PendingReport, delay: int, how: str = "never_started", gate: str | None = None
) -> RunOutcome:
    """Return the outcome of a run that cannot start here, or was snoozed: it is released for `delay` microseconds, uncharged.

    `gate` is closed for that time.
    """
    start, report = _unused_start(run, how), pending.report
    if how != "never_started":
        at = f" (gate {gate})" if gate is not None else ""
        report = {**report, "message": f"Snoozed for {stated_duration(delay / 1_000_000)}{at}"}
    plan = plan_release(new_operation_id(), run.token, report, delay=delay, gate=gate, start=start)
    return _ending(run, pending, plan, how)


def stopped(
    run: Run, pending: PendingReport, error: RunStop, *, how: str, delay: int | None = None,
    known: tuple[str, str] | None = None,
) -> RunOutcome:  # fmt: skip
    """Return the outcome of a run that was stopped, or whose code raised a RunStop itself.

    `known` is the one-line error and the crash report of a timeout, if a child process has made them.
    """
    reason = run._stop_reasons[0] if run._stop_reasons else error
    if not run._stop_reasons and isinstance(error, JobCancelled | LeaseLost):
        plan = plan_self_cancel(
            new_operation_id(),
            run.token,
            pending.report,
            by="its own code",
            why=masked_line(error, run._secret_values, 200),
        )
    elif isinstance(reason, JobCancelled):
        plan = LateReceipt(run.token, how, usage=pending.usage).plan()
    elif isinstance(reason, JobReleased):
        plan = plan_release(new_operation_id(), run.token, pending.report, start=_unused_start(run, how))
    elif isinstance(reason, JobSuspended):
        ran = int((time.monotonic() - run._began) * 1_000_000)
        plan = plan_suspend(
            new_operation_id(),
            run.token,
            pending.report,
            wake_at=reason.wake_at,
            ran=ran,
            asking=reason.asking,
            is_asked_above=reason.is_asked_above,
            groups=reason.groups,
            start=_unused_start(run, how),
        )
    elif isinstance(reason, JobPaused):
        ran = int((time.monotonic() - run._began) * 1_000_000)
        plan = plan_stopped_for_pause(new_operation_id(), run.token, pending.report, ran=ran, how=how)
    elif isinstance(reason, JobTimedOut):
        if known is None:
            known = report_exception(error if isinstance(error, JobTimedOut) else reason, run, FailureKind.TIMEOUT)
        line, failure = known
        plan = plan_fail(new_operation_id(), run.token, error=line, failure=failure, report=pending.report, delay=delay)
    else:
        return RunOutcome([], None)
    return _ending(run, pending, plan, how)


def _unused_start(run: Run, how: str) -> str | None:
    """Return when the job was started if its code was not: the start does not count for a rate."""
    return run._job.record.get("updated") if how == "never_started" else None


def _ending(run: Run, pending: PendingReport, plan: Change, late: str, result: str | None = None) -> RunOutcome:
    writes = list(pending.writes)
    if pending.lines is not None:
        writes.append(Write(run.job_id, plan_log(new_operation_id(), run.token, pending.lines), answer=False))
    writes.append(Write(run.job_id, plan, answer=False))
    return RunOutcome(writes, LateReceipt(run.token, late, result, pending.usage))


def abandonment(run: Run, *, delay: int | None = None, stack: str | None = None) -> RunOutcome | None:
    """Return the writes that end a run in the record while its code ignores the stop.

    The lease becomes a draining lease. None if the reason of the stop has ended the run in the record already.
    """
    reason = run._stop_reasons[0]
    if isinstance(reason, JobReleased):
        plan = plan_release(new_operation_id(), run.token, run._report(), stopping=True)
    elif isinstance(reason, JobTimedOut):
        line, failure = report_exception(reason, run, FailureKind.TIMEOUT, stack)
        plan = plan_fail(
            new_operation_id(),
            run.token,
            error=line,
            failure=failure,
            report=run._report(),
            delay=delay,
            stopping=True,
            why="timeout",
        )
    else:
        return None
    return RunOutcome([Write(run.job_id, plan, answer=False)], None)
