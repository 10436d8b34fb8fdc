"""What a heartbeat knows of its runs and sends next: a state without I/O, threads and clocks. `Heartbeat` drives it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from milepost.core.defaults import RENEWALS_PER_LEASE
from milepost.core.errors import JobCancelled, JobPaused, JobReleased, JobTimedOut, LeaseLost, RunStop
from milepost.core.job import Job
from milepost.core.serialization import from_json
from milepost.core.transitions import plan_log, plan_overrun, plan_report
from milepost.run.forecast.forecast import Forecast
from milepost.run.forecast.history import RunHistory
from milepost.run.report import log_event
from milepost.run.results import PartWriter
from milepost.settings import Settings
from milepost.stores.ids import Ids
from milepost.stores.protocol import MAX_CHARACTERS, NOT_WRITTEN, Write, WriteResult

if TYPE_CHECKING:
    from milepost.run.run import Run

log = logging.getLogger("milepost.heartbeat")

OnOutage = Literal["stop", "continue"]
ReacquireLease = Callable[[str], bool]
"""Take a new lease for the run that lost the lease of this token; return whether it has one. Raises StoreError."""


class PendingReport(NamedTuple):
    """The part of a run's report that the store is not known to have."""

    writes: list[Write]
    """Sent without a reply; to be sent again unchanged."""
    report: dict[str, str]
    lines: str | None
    record_profile: Callable[[], None] = lambda: None
    """To be called when the run has completed."""
    usage: str | None = None
    """What the job has spent, whether or not the store has it: a job that was cancelled accepts no more reports."""


@dataclass(slots=True)
class ReportedRun:
    """A run of a heartbeat. `sent` is what the store is known to have, `unanswered` what was sent without a reply."""

    run: Run
    on_outage: OnOutage
    renewed_at: float
    """When the last renewal was sent, on the monotonic clock."""
    began: float
    """Seconds since 1970."""
    reacquire: ReacquireLease | None
    forecast: Forecast | None = None
    forecast_failed: bool = False
    sent: dict[str, str] = field(default_factory=lambda: {"progress": "0.0"})  # as after each start
    unanswered: list[tuple[Write, dict[str, str]]] = field(default_factory=list)
    stages: tuple[tuple[str, bool], ...] = ()
    notified: bool = False
    has_expired: bool = False
    overrun_at: float | None = None
    """When the record is to say that the code did not stop within the grace period, on the monotonic clock."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a request reports the run."""

    def news(self, time: float) -> tuple[dict[str, str], str | None]:
        """Return the report fields and log lines that the store does not have yet. `time` is seconds since 1970."""
        fields = self.run._report()
        if self.forecast is not None:
            fields = {**fields, **self.updated_forecast(self.forecast, fields, time)}
        return {name: text for name, text in fields.items() if self.sent.get(name) != text}, self.run._take_lines()

    def forget(self, names: Iterable[str]) -> None:
        """Send these fields again: another write had them, and the store may have applied it after a newer report."""
        for name in names:
            for _, fields in self.unanswered:
                fields.pop(name, None)  # first, since a reply to these counts them as sent
            self.sent.pop(name, None)

    def updated_forecast(self, forecast: Forecast, fields: Mapping[str, str], time: float) -> Mapping[str, str]:
        """Return the forecast of the run. After an error in it, return nothing: it must not block the report."""
        if self.forecast_failed:
            return {}
        try:
            self.run._forecast = forecast.tick(fields, time)
            return self.run._forecast
        except Exception:
            log.exception("job %s: ETA estimation disabled after an error", self.run.job_id)
            self.forecast_failed = True
            return {}

    def output(self, new_operation_id: Callable[[], str], now: float | None = None) -> list[Write]:
        """Return the writes of the output: what is due at `now`, on the monotonic clock, or everything."""
        output = self.run._output
        if output is None or (now is not None and not output.is_due(now)):
            return []
        return output.writes(new_operation_id)

    def kind(self, report: dict[str, str]) -> str:
        """Return the kind of event for a report. Events of a stall, or of the start or end of a stage, are kept."""
        if "stages" in report:
            stages = tuple((stage["name"], "ended_at" in stage) for stage in from_json(report["stages"]))
            if stages != self.stages:
                self.stages = stages
                return "stage"
        return "stalled" if "stalled" in report else "progress"


@dataclass(frozen=True, slots=True)
class Beat:
    """One request: what it writes, the leases that it renews for `lease_micros` (or only checks), and the runs of both."""

    sent_at: float
    runs: Sequence[ReportedRun]
    reporting: Sequence[ReportedRun]
    writes: list[Write]
    leases: list[tuple[str, str]]
    lease_micros: int | None


class HeartbeatState:
    """The runs of a heartbeat by token. Times are seconds on the monotonic clock, except `time`: seconds since 1970."""

    def __init__(self, settings: Settings, history: RunHistory, parts: PartWriter, ids: Ids) -> None:
        self.runs: dict[str, ReportedRun] = {}
        self._settings = settings
        self._history = history
        self._parts = parts
        self._ids = ids
        self._first = 0

    def next(self, runs: Sequence[ReportedRun], now: float, time: float) -> Beat:
        """Return the request to send now: all leases, and the reports of as many runs as it may contain, in turn."""
        reporting: list[ReportedRun] = []
        writes: list[Write] = []
        left, first = MAX_CHARACTERS, self._first if self._first < len(runs) else 0
        for one in (*runs[first:], *runs[:first]):
            if left <= 0:
                break
            if one.run._is_finishing:
                continue
            collected = [write for write, _ in self._collect(one, now, time)]
            left -= sum([write.size for write in collected])
            writes += collected
            reporting.append(one)
        self._first = first + len(reporting) if left <= 0 else 0
        renewed_before = now - self._settings.lease / RENEWALS_PER_LEASE
        micros = self._settings.lease_micros if any(one.renewed_at <= renewed_before for one in runs) else None
        return Beat(now, runs, reporting, writes, [(one.run.job_id, one.run.token) for one in runs], micros)

    def _collect(self, one: ReportedRun, now: float, time: float) -> list[tuple[Write, dict[str, str]]]:
        """Return the writes to send now: unanswered ones again, with the same operation ids, else what is new."""
        if one.forecast is None:
            one.forecast = Forecast(one.run, one.began, self._history, self._settings.stalled)
        if not one.unanswered:
            run, new_id = one.run, self._ids.new_operation_id
            report, lines = one.news(time)
            if report:
                plan = plan_report(new_id(), run.token, report, one.kind(report))
                one.unanswered.append((Write(run.job_id, plan, answer=False), report))
            if lines is not None:
                one.unanswered.append((Write(run.job_id, plan_log(new_id(), run.token, lines), answer=False), {}))
            one.unanswered += [(write, {}) for write in one.output(new_id, now)]
            if one.overrun_at is not None and now > one.overrun_at:
                one.overrun_at = None
                line = log_event("still running after the grace period", "warning")
                one.unanswered.append((Write(run.job_id, plan_overrun(new_id(), run.token, line), answer=False), {}))
        return one.unanswered

    def answered(
        self, beat: Beat, outcomes: Sequence[WriteResult], states: Sequence[str]
    ) -> list[tuple[ReportedRun, str, str]]:
        """Note the reply to a request.

        Return the runs whose code is to be notified: each with the token and the state of the lease that it has lost.
        """
        answers = iter(outcomes)
        for one in beat.reporting:
            unwritten = []
            for sent in one.unanswered:
                outcome = next(answers)
                if outcome is NOT_WRITTEN:
                    unwritten.append(sent)
                elif outcome.accepted:
                    one.sent.update(sent[1])
            one.unanswered = unwritten
        if beat.lease_micros is not None:
            for one in beat.runs:
                one.renewed_at = beat.sent_at
        return [
            (one, token, state)
            for one, (_, token), state in zip(beat.runs, beat.leases, states, strict=True)
            if state != "live" and not one.notified and not one.run._is_finishing
        ]

    def notified(self, one: ReportedRun, now: float) -> None:
        """Note that the code of a run was notified: it has the grace period to do so."""
        one.notified = True
        one.overrun_at = now + self._settings.grace

    def silence(self, now: float) -> tuple[list[ReportedRun], list[float]]:
        """Return the runs to stop, whose lease was not renewed in time, and the ends of the leases of the others.

        A run that continues during an outage is left out.
        """
        expired, ends = [], []
        for one in list(self.runs.values()):
            if one.on_outage == "stop" and not one.has_expired and not one.run._is_finishing:
                end = one.renewed_at + self._settings.lease
                one.has_expired = end <= now
                if one.has_expired:
                    expired.append(one)
                else:
                    ends.append(end)
        return expired, ends

    def change_token(self, one: ReportedRun, token: str, sent_at: float) -> None:
        """Report a run under another lease. All fields are sent again, since the record may be a new one."""
        self.runs.pop(one.run.token, None)
        one.run.token = token
        one.sent, one.unanswered, one.renewed_at = {"progress": "0.0"}, [], sent_at
        self.runs[token] = one

    def remove(self, one: ReportedRun, time: float) -> PendingReport:
        """Remove a run; return what the store is not known to have, for its outcome."""
        self.runs.pop(one.run.token, None)
        unanswered = [write for write, _ in one.unanswered]
        for _, fields in one.unanswered:
            one.sent.update(fields)
        unanswered += one.output(self._ids.new_operation_id)
        report, lines = one.news(time)
        self._parts.leave(one.run)
        one.sent.update(report)
        return PendingReport(unanswered, report, lines, partial(self._completed, one, time), one.sent.get("usage"))

    def _completed(self, one: ReportedRun, time: float) -> None:
        """Keep the profile of a completed run for later forecasts, and discard its kept results."""
        cursors = from_json(one.sent["cursors"]).values() if "cursors" in one.sent else ()
        steps = one.run._kept_steps
        self._parts.discard(one.run.job_id, cursors if steps is None else (*cursors, from_json(steps)))
        if "segments" in one.run._job.record:
            return  # only its last segment was seen
        if one.forecast is None:
            self._history.record_short_run(one.run.job_type, time - one.began)
        elif not one.forecast_failed:
            one.forecast.record_profile(time)


def stop_refused(run: Run, job: Job | None, state: str) -> RunStop:
    """Stop a run whose write was refused, and return the RunStop to raise; `job` and `state` are as in `stop_reason`."""
    run.stop(stop_reason(job, run.token, state))
    return run._stop_reasons[0]


def stop_reason(job: Job | None, token: str, state: str) -> RunStop:
    """Return the RunStop for a run, from its record and the state of its lease."""
    if job is None:
        return JobCancelled("the job was deleted") if state == "stopping" else LeaseLost("the job no longer exists")
    record = job.record
    if record.get("stop_token") != token:
        if state == "stopping":  # the record was deleted and its id used again
            return JobCancelled("the job was deleted")
        if record.get("token") == token:  # the record is a leftover, e.g. of a database file that was deleted
            return LeaseLost(f"the store no longer has job {job.job_id}")
        return LeaseLost(f"job {job.job_id} is {job.status} in another run")
    why = record.get("stop_reason")
    if record.get("stop_by") == "milepost" and why == "timeout":
        return JobTimedOut("timeout exceeded")
    if record.get("stop_by") == "milepost" and why == "shutdown":
        return JobReleased("worker is shutting down")
    # A cancel may have this reason, too. Then the job is not suspended, and has been started since only after a retry.
    if why == "paused" and ("suspended" in record or record.get("token", token) != token):
        return JobPaused("paused")
    # The status does not tell: a job that was retried since is pending.
    return JobCancelled(f"cancelled: {why}" if why else "cancelled")
