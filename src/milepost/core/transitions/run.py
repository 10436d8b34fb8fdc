"""What a run writes, fenced by its token: reports, log lines, output, checkpoints, and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from milepost.core.placement import ANSWER
from milepost.core.record import cleared
from milepost.core.serialization import US
from milepost.core.transitions.change import Branch, Change, Const, Field, Guard, Operation, Param
from milepost.core.transitions.table import (
    ANY,
    COMPLETED,
    DRAIN_LEASE,
    END_JOB,
    END_LEASE,
    FAILED,
    HOLDS_DRAINING_LEASE,
    HOLDS_TOKEN,
    PENDING,
    REPORT,
    REPORT_EVENT,
    REPORT_OPS,
    RETURN_TO_PENDING,
    RUNNING,
    SET_FAILURE,
    SUSPEND,
    UNSUCCESSFUL,
    TransitionTemplate,
    bind,
    branch,
    template,
)

_REPORTS = {
    kind: template(
        kind,
        ("token", *REPORT),
        branch(
            (RUNNING,),
            guards=(HOLDS_TOKEN,),
            ops=REPORT_OPS,
            event=kind,
            keep=keep,
            emit=REPORT_EVENT,
        ),
        retention="reports",
    )
    for kind, keep in (("progress", "feed"), ("stage", "list"), ("stalled", "list"))
}
_LOG = template(
    "log",
    ("token", "lines"),
    branch((RUNNING,), guards=(HOLDS_TOKEN,), event="log", keep="list", data=Param("lines")),
    branch(
        ANY,
        guards=HOLDS_DRAINING_LEASE,
        event="log",
        keep="list",
        data=Param("lines"),
    ),
    retention="reports",
)
_CHECKPOINT = template(
    "checkpoint",
    ("token", "checkpoint", *REPORT),
    branch(
        (RUNNING,),
        guards=(HOLDS_TOKEN,),
        ops=(("set", "checkpoint", Param("checkpoint")), ("stamp", "checkpoint_at"), *REPORT_OPS),
        event="checkpoint",
        keep="list",
        emit=("progress", "message"),
    ),
    retention="checkpoints",
)


_KEEP_STEP = template(
    "keep_step",
    ("token", "steps", "key", "usage"),
    branch(
        (RUNNING,),
        guards=(HOLDS_TOKEN,),
        ops=(("set", "steps", Param("steps")), ("set", "usage", Param("usage"))),
        event="step",
        keep="list",
        data=Param("key"),
    ),
    retention="steps",
)


def _outputs(event: str) -> TransitionTemplate:
    ops: tuple[Operation, ...] = (
        ("put", Param("key"), Param("chunk")),
        ("erase", Param("erased")),
        ("add", "output_bytes", Param("added")),
    )

    def write(statuses: tuple[str, ...], *guards: Guard) -> Branch:
        return branch(statuses, guards=guards, ops=ops, event=event, keep="feed")

    return template(
        "output",
        ("token", "key", "chunk", "erased", "added"),
        write((RUNNING,), HOLDS_TOKEN),
        write(ANY, *HOLDS_DRAINING_LEASE),
        retention="reports",
    )


_OUTPUT, _SILENT_OUTPUT = _outputs("output"), _outputs("")


def plan_report(operation_id: str, token: str, report: Mapping[str, str], kind: str = "progress") -> Change:
    """Report the state of a run; `kind` is progress, stage or stalled."""
    return bind(_REPORTS[kind], operation_id, token=token, **report)


def plan_log(operation_id: str, token: str, lines: str) -> Change:
    """Append log lines of a run (a JSON object with `lines`); accepted under a draining lease of this record too."""
    return bind(_LOG, operation_id, token=token, lines=lines)


def plan_checkpoint(operation_id: str, token: str, value: str, report: Mapping[str, str]) -> Change:
    """Record a checkpoint from which the next attempt can resume."""
    return bind(_CHECKPOINT, operation_id, token=token, checkpoint=value, **report)


def plan_keep_step(operation_id: str, token: str, steps: str, key: str, usage: str | None = None) -> Change:
    """Keep the value of a step: `steps` are all kept values of the job, `key` (a JSON object with `key`) names the new one.

    `usage` is what the job has spent; None changes nothing.
    """
    return bind(_KEEP_STEP, operation_id, token=token, steps=steps, key=key, usage=usage)


CLEAR_RETRY_FIELDS: tuple[Operation, ...] = tuple(("clear", name) for name in cleared("complete"))
"""Clear what only a later attempt would need."""


def plan_output(
    operation_id: str, token: str, *, key: str, chunk: str, added: int, erased: tuple[str, ...] = (), silent: bool = False
) -> Change:  # fmt: skip
    """Write a chunk of the output of a run under its key, and delete the chunks that it displaces.

    `added` is the size of the new text in bytes. `silent`: without an event, as for all but the last chunk of a request.
    Accepted under a draining lease of this record too, as log lines are.
    """
    form = _SILENT_OUTPUT if silent else _OUTPUT
    keys = US.join(erased) or None
    return bind(form, operation_id, token=token, key=key, chunk=chunk, erased=keys, added=str(added))


def _completes(*kept: str, report: tuple[Operation, ...] = REPORT_OPS) -> TransitionTemplate:
    return template(
        "complete",
        ("token", *kept, *(str(op[1]) for op in report)),
        branch(
            (RUNNING,),
            COMPLETED,
            guards=(HOLDS_TOKEN,),
            ops=(
                *report,
                *(("set", name, Param(name)) for name in kept),
                ("set", "progress", Const("1")),
                *END_LEASE,
                *END_JOB,
                *CLEAR_RETRY_FIELDS,
            ),
            event="completed",
            emit=("progress", "message", "open_children"),
        ),
    )


_COMPLETE = _completes("result", "queue_result", "open_children")
_COMPLETE_WITHOUT_REPORT = _completes("result", report=())
"""The same for most short jobs, which report nothing: a store compiles it to less, and its requests are smaller."""
_COMPLETE_WITHOUT_RESULT = _completes("result_error", "result_text", "queue_result", "open_children")


UNSTART: tuple[Operation, ...] = (("unstart", Param("start")),)


@cache
def _fails(retryable: bool, stopping: bool, unstarted: bool) -> TransitionTemplate:
    ends = (*(UNSTART if unstarted else ()), *(DRAIN_LEASE if stopping else END_LEASE))
    again = branch(
        (RUNNING,),
        PENDING,
        guards=(HOLDS_TOKEN, ("lt", "attempt", Field("max_attempts")), ("ne", "run_by", Const("track"))),
        ops=(
            *REPORT_OPS,
            *SET_FAILURE,
            *ends,
            *RETURN_TO_PENDING,
            ("clear", "suspect"),
            ("stamp", "not_before", Param("delay")),
        ),
        event="retrying",
        emit=("error", "attempt", "stop_how"),
    )
    last = branch(
        (RUNNING,),
        FAILED,
        guards=(HOLDS_TOKEN,),
        ops=(*REPORT_OPS, *SET_FAILURE, *ends, *END_JOB),
        event="failed",
        emit=("error", "progress", "message"),
    )
    names = ("token", "error", "failure", "delay", "by", "why", "start", *REPORT)
    return template("fail", names, *((again, last) if retryable else (last,)))


@cache
def _releases(stopping: bool, gated: bool, unstarted: bool) -> TransitionTemplate:
    return template(
        "release",
        ("token", "by", "why", "delay", "start", *(("gate",) if gated else ()), *REPORT),
        branch(
            (RUNNING,),
            PENDING,
            guards=(HOLDS_TOKEN, ("ne", "run_by", Const("track"))),
            ops=(
                *REPORT_OPS,
                *(DRAIN_LEASE if stopping else END_LEASE),
                *RETURN_TO_PENDING,
                ("add", "attempt", Const("-1")),
                ("stamp", "not_before", Param("delay")),
                *((("gate", Param("gate"), Param("delay")),) if gated else ()),
                *(UNSTART if unstarted else ()),
            ),
            event="released",
            emit=("message",),
        ),
    )


def _suspends(*guards: Guard, ops: tuple[Operation, ...] = ()) -> Branch:
    return branch(
        (RUNNING,),
        PENDING,
        guards=(HOLDS_TOKEN, ("ne", "run_by", Const("track")), *guards),
        ops=(*REPORT_OPS, *END_LEASE, *SUSPEND, ("stamp", "stale", Field("dispatch_after")), *ops),
        event="suspended",
        keep="list",
        emit=("message", "wake_at", "held"),
    )


_SUSPEND = template("suspend", ("token", "wake_at", "ran", "wait_groups", *REPORT), _suspends())
_SUSPEND_FOR_GROUPS = template(
    "suspend", ("token", "wake_at", "ran", "wait_groups", *REPORT), _suspends(ops=(("hold", UNSUCCESSFUL),))
)


@cache
def _suspends_asking(unstarted: bool) -> TransitionTemplate:
    ops = UNSTART if unstarted else ()
    return template(
        "suspend_asking",
        ("token", "wake_at", "ran", "wait_groups", "asking", "held", "start", *REPORT),
        _suspends(("eq", "asking", Param("asking")), ops=(*ops, ("set", "held", Param("held")))),
        # The answer came while the code returned.
        _suspends(ops=(*ops, ("stamp", "wake_at"))),
    )


def plan_complete(
    operation_id: str,
    token: str,
    result: str | None,
    report: Mapping[str, str],
    queue_result: str | None = None,
    open_children: str | None = None,
) -> Change:
    """Complete a run. `queue_result` is the result as its task queue encodes it, if `result` cannot express it;
    `open_children` is the number of children that were open when its code returned, None for none.
    """
    if not report and queue_result is None and open_children is None:
        return bind(_COMPLETE_WITHOUT_REPORT, operation_id, token=token, result=result)
    kept = {"result": result, "queue_result": queue_result, "open_children": open_children}
    return bind(_COMPLETE, operation_id, token=token, **kept, **report)


def plan_complete_without_result(
    operation_id: str,
    token: str,
    error: str,
    text: str,
    report: Mapping[str, str],
    queue_result: str | None = None,
    open_children: str | None = None,
) -> Change:
    """Complete a run whose result is not JSON: the record keeps why, and its text. The rest is as in `plan_complete`."""
    kept = {"result_error": error, "result_text": text, "queue_result": queue_result, "open_children": open_children}
    return bind(_COMPLETE_WITHOUT_RESULT, operation_id, token=token, **kept, **report)


def plan_fail(
    operation_id: str,
    token: str,
    *,
    error: str,
    failure: str,
    report: Mapping[str, str],
    delay: int | None = None,
    stopping: bool = False,
    why: str | None = None,
    start: str | None = None,
) -> Change:
    """Fail a run: the job is pending again after `delay` microseconds while attempts are left, else failed.

    With `delay` None it is never retried. `stopping`: the run's code has not stopped, so its lease drains. `start`: when
    the job was started, if its code was not, so that the start does not count for a rate.
    """
    transition = _fails(delay is not None, stopping, start is not None)
    wait = None if delay is None else str(delay)
    return bind(
        transition,
        operation_id,
        token=token,
        error=error,
        failure=failure,
        delay=wait,
        by="milepost",
        why=why,
        start=start,
        **report,
    )


def plan_release(
    operation_id: str,
    token: str,
    report: Mapping[str, str],
    *,
    stopping: bool = False,
    delay: int | None = None,
    gate: str | None = None,
    start: str | None = None,
) -> Change:
    """Return a job to pending without charging an attempt.

    `stopping`: its code did not stop within the grace period, so its lease drains. `delay`: microseconds until another
    run may start. `gate`: a limit key of which no job may start before that either. `start` is as in `plan_fail`.
    """
    given = {"by": "milepost", "why": "shutdown", "delay": None if delay is None else str(delay), "start": start}
    if gate is not None:
        given["gate"] = gate
    return bind(_releases(stopping, gate is not None, start is not None), operation_id, token=token, **given, **report)


def plan_suspend(
    operation_id: str,
    token: str,
    report: Mapping[str, str],
    *,
    ran: int,
    wake_at: int | None = None,
    asking: str | None = None,
    is_asked_above: bool = False,
    groups: Sequence[str] = (),
    start: str | None = None,
) -> Change:
    """Return a job of a worker to pending within its attempt, until a time of the store's clock, an answer, or until none of
    the groups has an open member, whichever comes first.

    `ran` is how long this segment ran, in microseconds. `asking` is the key of the question that it waits for: one that
    was answered by now wakes the job at once, unless it `is_asked_above`, by another job. `start` is as in `plan_fail`, for
    one that asks. Accepted under the live token only, so the code of this segment must have
    returned. ValueError if nothing would wake the job.
    """
    until = None if wake_at is None else str(wake_at)
    if asking is not None:
        form, own = _suspends_asking(start is not None), None if is_asked_above else asking
        values = {"token": token, "wake_at": until, "ran": str(ran), "held": ANSWER + asking, "start": start}
        return bind(form, operation_id, **values, asking=own, **report)
    if until is None and not groups:
        raise ValueError("a suspension needs a time, a question or a group to wake")
    form = _SUSPEND_FOR_GROUPS if groups else _SUSPEND
    waits = US.join(groups) or None
    return bind(form, operation_id, token=token, wake_at=until, ran=str(ran), wait_groups=waits, **report)
