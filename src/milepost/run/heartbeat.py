"""The heartbeat: one thread of a process and manager that sends reports, renews leases and receives stops.

One round trip a beat, whatever the number of runs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from milepost.core.defaults import HEARTBEAT, JOB_TTL, RENEWALS_PER_LEASE
from milepost.core.errors import JobReleased, StoreError
from milepost.core.serialization import from_json
from milepost.core.transitions import plan_log, plan_overrun, plan_report
from milepost.run.forecast.forecast import Forecast
from milepost.run.forecast.history import BUSY_WRITE_INTERVAL, IDLE_WRITE_INTERVAL, RunHistory
from milepost.run.lease_watch import LeaseWatch
from milepost.run.log_buffer import log_event
from milepost.run.outage import Outage
from milepost.run.result_parts import PartWriter
from milepost.run.stop_reason import stop_reason
from milepost.run.sweeper import Sweeper
from milepost.settings import Settings
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import MAX_CHARACTERS, Store, Write
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.run.run import Run


log = logging.getLogger("milepost.heartbeat")
log.addHandler(logging.NullHandler())

BACKLOG_PAUSE = 0.05
"""Seconds between two beats while there is a backlog to sweep or purge."""

OnOutage = Literal["stop", "continue"]
ReacquireLease = Callable[[str], bool]
"""Take a new lease for the run that lost the lease of this token; return whether it has one. Raises StoreError."""


@dataclass(slots=True)
class _Channel:
    """A run in the heartbeat. `sent` is what the store is known to have, `unanswered` what was sent without a reply."""

    run: Run
    on_outage: OnOutage
    renewed_at: float
    history: RunHistory
    min_silence: float
    parts: PartWriter
    reacquire: ReacquireLease | None = None
    began: float = field(default_factory=time.time)
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

    def collect(self) -> list[tuple[Write, dict[str, str]]]:
        """Return the writes to send now: unanswered ones again, with the same operation ids, else what is new."""
        if self.forecast is None:
            self.forecast = Forecast(self.run, self.began, self.history, self.min_silence)
        if not self.unanswered:
            report, lines = self.news()
            if report:
                kind = self.kind(report)
                plan = plan_report(new_operation_id(), self.run.token, report, kind)
                self.unanswered.append((Write(self.run.job_id, plan, answer=False), report))
            if lines is not None:
                plan = plan_log(new_operation_id(), self.run.token, lines)
                self.unanswered.append((Write(self.run.job_id, plan, answer=False), {}))
            if self.overrun_at is not None and time.monotonic() > self.overrun_at:
                self.overrun_at = None
                plan = plan_overrun(
                    new_operation_id(), self.run.token, log_event("still running after the grace period", "warning")
                )
                self.unanswered.append((Write(self.run.job_id, plan, answer=False), {}))
        return self.unanswered

    def news(self) -> tuple[dict[str, str], str | None]:
        """Return the report fields and log lines that the store does not have yet."""
        fields = self.run.report()
        if self.forecast is not None:
            fields = {**fields, **self.updated_forecast(self.forecast, fields)}
        return {name: text for name, text in fields.items() if self.sent.get(name) != text}, self.run.take_lines()

    def updated_forecast(self, forecast: Forecast, fields: Mapping[str, str]) -> Mapping[str, str]:
        """Return the forecast of the run. After an error in it, return nothing: it must not block the report."""
        if self.forecast_failed:
            return {}
        try:
            self.run._forecast = forecast.tick(fields, time.time())
            return self.run._forecast
        except Exception:
            log.exception("job %s: ETA estimation disabled after an error", self.run.job_id)
            self.forecast_failed = True
            return {}

    def pending(self) -> PendingReport:
        """Return what the store is not known to have, for the outcome of the run. Call with the lock held."""
        unanswered = [write for write, _ in self.unanswered]
        for _, fields in self.unanswered:
            self.sent.update(fields)
        report, lines = self.news()
        self.parts.leave(self.run)
        self.sent.update(report)
        return PendingReport(unanswered, report, lines, self.record_profile)

    def record_profile(self) -> None:
        """Keep the profile of a completed run for later forecasts, and discard its kept results."""
        self.parts.discard(self.run.job_id, self.sent.get("cursors", "{}"))
        if self.forecast is not None:
            if not self.forecast_failed:
                self.forecast.record_profile(time.time())
        else:
            self.history.record_short_run(self.run.job_type, time.time() - self.began)

    def stop_expired(self) -> None:
        """Stop the run: its lease was not renewed in time, so another process may start it now."""
        self.has_expired = True
        self.run.stop(JobReleased("store unavailable for longer than the lease"))

    def kind(self, report: dict[str, str]) -> str:
        """Return the kind of event for a report. Events of a stall, or of the start or end of a stage, are kept."""
        if "stages" in report:
            stages = tuple((stage["name"], "ended_at" in stage) for stage in from_json(report["stages"]))
            if stages != self.stages:
                self.stages = stages
                return "stage"
        return "stalled" if "stalled" in report else "progress"


class PendingReport(NamedTuple):
    """The part of a run's report that the store is not known to have."""

    writes: list[Write]
    """Sent without a reply; to be sent again unchanged."""
    report: dict[str, str]
    lines: str | None
    record_profile: Callable[[], None] = lambda: None
    """To be called when the run has completed."""


class Heartbeat:
    """The heartbeat of one manager in one process. `add` a run; `remove` it before its outcome is written."""

    def __init__(self, store: Store, settings: Settings, sweeper: Sweeper, ttl: float = JOB_TTL) -> None:
        self.store = store
        self.pid = os.getpid()
        self._parts = PartWriter(store, ttl)
        self._outage = Outage(log, "running jobs continue")
        self._settings = settings
        self.interval = store.report_interval if settings.heartbeat == HEARTBEAT else settings.heartbeat
        self._sweeper = sweeper
        self._channels: dict[str, _Channel] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._renew_at, self._first, self._keep_count = 0.0, 0, 0
        self._watch = LeaseWatch(settings.lease, self._watched)
        self.history = RunHistory(store)

    def add(
        self,
        run: Run,
        on_outage: OnOutage,
        sent_at: float | None = None,
        reacquire: ReacquireLease | None = None,
    ) -> None:
        """Report a run and renew its lease from now on.

        `sent_at` is when its lease was requested, on the monotonic clock. A run whose lease is lost is stopped, unless
        `reacquire` takes a new one.
        """
        renewed_at = time.monotonic() if sent_at is None else sent_at
        with self._lock:
            self._channels[run.token] = _Channel(
                run, on_outage, renewed_at, self.history, self._settings.stalled, self._parts, reacquire
            )
            if self._thread is None:
                self._start()
        if on_outage == "stop":
            self._watch.include(renewed_at)

    def _watched(self) -> list[_Channel]:
        """Return the runs that stop when their lease is over."""
        return [c for c in tuple(self._channels.values()) if c.on_outage == "stop" and not c.has_expired]

    def retain(self) -> None:
        """Keep the thread running, even without runs, until `release`: for a worker or a server of this process."""
        with self._lock:
            self._keep_count += 1
            self._start()

    def release(self) -> None:
        """Undo one `retain`."""
        with self._lock:
            self._keep_count -= 1

    @property
    def is_running(self) -> bool:
        """Return whether the thread is running."""
        return self._thread is not None

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="milepost-heartbeat", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Beat at once."""
        self._wake.set()

    def remove(self, run: Run) -> PendingReport:
        """Stop reporting a run and return what is not sent of its report; wait for a beat in progress."""
        channel = self._channels.pop(run.token, None)
        if channel is None:
            return PendingReport([], run.report(), run.take_lines())
        with channel.lock:
            return channel.pending()

    def change_token(self, run: Run, token: str, sent_at: float) -> None:
        """Report a run under another lease. All fields are sent again, since the record may be a new one."""
        channel = self._channels.get(run.token)
        if channel is None:
            run.token = token
            return
        with channel.lock:
            self._channels.pop(run.token, None)
            run.token = token
            channel.sent, channel.unanswered, channel.renewed_at = {"progress": "0.0"}, [], sent_at
            self._channels[token] = channel

    def try_remove(self, run: Run) -> PendingReport | None:
        """Remove a run without waiting; return None if a beat in progress still reports it."""
        channel = self._channels.get(run.token)
        if channel is None:
            return self.remove(run)
        if not channel.lock.acquire(blocking=False):
            return None
        try:
            self._channels.pop(run.token, None)
            return channel.pending()
        finally:
            channel.lock.release()

    def _run(self) -> None:
        idle_since = time.monotonic()
        while True:
            self._wake.wait(self._pause)
            self._wake.clear()
            channels = list(self._channels.values())
            if channels or self._keep_count:
                idle_since = time.monotonic()
            asks = bool(channels) or self._sweeper.is_due
            try:
                if channels:
                    self._tick(channels)
                run_sync(self._sweeper.tick())
                self._update_history(
                    channels, BUSY_WRITE_INTERVAL if channels or self._keep_count else IDLE_WRITE_INTERVAL
                )
                if asks:
                    self._outage.answered()
            except StoreError as error:
                self._outage.failed(error)
            except Exception:
                # A defect here must not stop the heartbeat of all runs.
                log.exception("unexpected error in the heartbeat; continuing")
            with self._lock:
                if not self._channels and not self._keep_count and time.monotonic() - idle_since > 1.0:
                    self._thread = None
                    return

    @property
    def _pause(self) -> float:
        """Return the seconds until the next beat: fewer while there is a backlog to sweep or purge."""
        is_behind = self._sweeper.is_behind and not self._outage.is_active
        return min(self.interval, BACKLOG_PAUSE) if is_behind else self.interval

    def _tick(self, channels: list[_Channel]) -> None:
        """Send reports, log lines and renewals in one round trip, and stop the runs that were stopped in the store."""
        for channel in channels:
            channel.lock.acquire()
        try:
            live = [c for c in channels if c.run.token in self._channels]
            self._parts.write([channel.run for channel in live])
            reporting, writes = self._collect(live)
            sent_at = time.monotonic()
            renew = sent_at >= self._renew_at
            micros = self._settings.lease_micros if renew else None
            leases = [(channel.run.job_id, channel.run.token) for channel in live]
            outcomes, states = run_sync(self.store.heartbeat(writes, leases, micros))
            if renew:
                self._renew_at = sent_at + self._settings.lease / RENEWALS_PER_LEASE
            answers = iter(outcomes)
            for channel in reporting:
                for _, fields in channel.unanswered:
                    if next(answers).accepted:
                        channel.sent.update(fields)
                channel.unanswered = []
            if renew:
                for channel in live:
                    channel.renewed_at = sent_at
        finally:
            for channel in channels:
                channel.lock.release()
        for channel, (job_id, token), state in zip(live, leases, states, strict=True):
            if state != "live" and not channel.notified:
                if state == "lost" and channel.reacquire is not None and channel.reacquire(token):
                    continue
                job = run_sync(self.store.get(job_id))
                channel.run.stop(stop_reason(job, token, state))
                channel.notified = True
                channel.overrun_at = time.monotonic() + self._settings.grace

    def _collect(self, live: list[_Channel]) -> tuple[list[_Channel], list[Write]]:
        """Return the runs to report in this beat and their writes: as many as one request may have, in turn."""
        reporting: list[_Channel] = []
        writes: list[Write] = []
        left, first = MAX_CHARACTERS, self._first if self._first < len(live) else 0
        for channel in (*live[first:], *live[:first]):
            if left <= 0:
                break
            collected = [write for write, _ in channel.collect()]
            left -= sum([write.size for write in collected])
            writes += collected
            reporting.append(channel)
        self._first = first + len(reporting) if len(reporting) < len(live) else 0
        return reporting, writes

    def _update_history(self, channels: Sequence[_Channel], spacing: float) -> None:
        """Read the history of types that run for longer than a moment, and write new profiles."""
        job_types = {c.run.job_type for c in channels if c.forecast is not None and not c.forecast.is_young}
        run_sync(self.history.sync(job_types, spacing=spacing))
        self._parts.delete_outdated()

    def save(self) -> None:
        """Write the profiles of the last runs before the process ends."""
        if not self._outage.is_active:
            try:
                self._update_history((), 0)
            except StoreError as error:
                log.debug("history of the last runs not written: %s", error)
