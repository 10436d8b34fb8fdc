"""The heartbeat: one thread of a manager that sends reports, renews leases and receives stops; another watches the leases.

One round trip a beat, whatever the number of runs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from milepost.core.defaults import HEARTBEAT, JOB_TTL
from milepost.core.errors import JobReleased, StoreError
from milepost.run.forecast.history import BUSY_WRITE_INTERVAL, IDLE_WRITE_INTERVAL, RunHistory
from milepost.run.heartbeat_state import (
    HeartbeatState,
    OnOutage,
    PendingReport,
    ReacquireLease,
    ReportedRun,
    stop_reason,
)
from milepost.run.results import PartWriter
from milepost.run.sweeper import Sweeper
from milepost.run.transaction import is_over
from milepost.run.usage import stop_runs_over_budget
from milepost.settings import Settings
from milepost.stores.clock import SYSTEM_CLOCK, Clock
from milepost.stores.ids import SYSTEM_IDS, Ids
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.run.run import Run

log = logging.getLogger("milepost.heartbeat")
log.addHandler(logging.NullHandler())

BACKLOG_PAUSE = 0.05
"""Seconds between two beats while there is a backlog to sweep or purge."""
END_SECONDS = 5.0
"""The longest wait for a beat in progress when a manager is closed."""


class Outage:
    """The outages of a store as one thread or worker sees them.

    `consequence` tells in the log what happens to its work meanwhile.
    """

    def __init__(
        self, log: logging.Logger, consequence: str, subject: str = "", *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._monotonic = clock.monotonic
        self._log = log
        self._consequence = consequence
        self._subject = f"{subject}: " if subject else ""
        self._since: float | None = None

    @property
    def is_active(self) -> bool:
        """Return whether the last request failed."""
        return self._since is not None

    def failed(self, error: StoreError) -> None:
        """Note that the store did not reply."""
        if self._since is None:
            self._since = self._monotonic()
            self._log.warning("%sstore unavailable; %s: %s", self._subject, self._consequence, error)

    def answered(self) -> None:
        """Note that the store replied."""
        if self._since is not None:
            seconds = self._monotonic() - self._since
            self._since = None
            self._log.warning("%sstore available again after %.0f s", self._subject, seconds)


class Heartbeat:
    """The heartbeat of one manager in one process. `add` a run; `remove` it before its outcome is written."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        ttl: float = JOB_TTL,
        *,
        clock: Clock = SYSTEM_CLOCK,
        ids: Ids = SYSTEM_IDS,
    ) -> None:
        self.store = store
        self.pid = os.getpid()
        self.interval = store.report_interval if settings.heartbeat == HEARTBEAT else settings.heartbeat
        self.history = RunHistory(store, clock)
        self._clock = clock
        self._lease = settings.lease
        self._output_bytes = settings.output_bytes
        self._parts = PartWriter(store, ttl, clock)
        self._state = HeartbeatState(settings, self.history, self._parts, ids)
        self._sweeper = Sweeper(store, settings, ttl, clock=clock, ids=ids)
        self._outage = Outage(log, "running jobs continue", clock=clock)
        self._watch = LeaseWatch(self._state, settings.lease, clock)
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._keep_count = 0
        self._is_ending = False
        self._reported_at = 0.0

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
        renewed_at = self._clock.monotonic() if sent_at is None else sent_at
        run._output_bytes = self._output_bytes
        reported = ReportedRun(run, on_outage, renewed_at, self._clock.time(), reacquire)
        with self._lock:
            if self._thread is None:
                self._start()
            self._state.runs[run.token] = reported
        if renewed_at + self._lease < self._clock.monotonic() + 1.5 * self.interval:
            self.wake()  # the reply came so late that the lease may end before the next beat
        if on_outage == "stop":
            self._watch.include(renewed_at)

    def stop_if_expired(self, run: Run) -> None:
        """Stop a run whose lease may be over. `LeaseWatch` does so too, but after a pause of the process others may be faster."""
        reported, now = self._state.runs.get(run.token), self._clock.monotonic()
        if reported is not None and reported.renewed_at + self._lease <= now:
            self._watch.stop_expired(now)

    def retain(self) -> None:
        """Keep the thread running, even without runs, until `release`: for a worker or a server of this process."""
        with self._lock:
            self._keep_count += 1
            self._start()

    def release(self) -> None:
        """Undo one `retain`."""
        with self._lock:
            self._keep_count -= 1

    def end(self) -> None:
        """End the thread, unless it has runs or is retained, and wait for a beat in progress for a few seconds."""
        with self._lock:
            thread = self._thread
            if thread is None or self._state.runs or self._keep_count:
                return
            self._is_ending = True
        self._wake.set()
        thread.join(END_SECONDS)

    @property
    def job_ids(self) -> tuple[str, ...]:
        """Return the jobs whose runs it reports."""
        return tuple(one.run.job_id for one in list(self._state.runs.values()))

    @property
    def is_running(self) -> bool:
        """Return whether the thread is running."""
        return self._thread is not None

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="milepost-heartbeat", daemon=True)
            thread.start()  # the system may refuse it
            self._thread = thread

    def wake(self) -> None:
        """Beat at once."""
        self._wake.set()

    def remove(self, run: Run) -> PendingReport:
        """Stop reporting a run and return what is not sent of its report; wait for a beat in progress.

        Its kept results are written before: until then, its lease is renewed.
        """
        if run.token in self._state.runs:
            with contextlib.suppress(StoreError):  # a missing part costs no more than repeating its items
                self._parts.finish(run)
        reported = self._state.runs.pop(run.token, None)
        if reported is None:
            report = run._report()
            return PendingReport([], report, run._take_lines(), usage=report.get("usage"))
        with reported.lock:
            with contextlib.suppress(StoreError):  # the outcome waits for the store, or fails
                self._know_earlier_output(run)
            return self._state.remove(reported, self._clock.time())

    def try_remove(self, run: Run) -> PendingReport | None:
        """Remove a run without waiting; return None if a beat in progress still reports it, or the store is to be used."""
        reported = self._state.runs.get(run.token)
        if reported is None:
            return self.remove(run)
        uses_store = self._parts.has_waiting(run) or (run._output is not None and run._output.has_earlier)
        if uses_store or not reported.lock.acquire(blocking=False):
            return None
        try:
            return self._state.remove(reported, self._clock.time())
        finally:
            reported.lock.release()

    def unanswered(self, run: Run) -> list[Write]:
        """Return what was sent for a run without a reply so far."""
        reported = self._state.runs.get(run.token)
        return [write for write, _ in reported.unanswered] if reported is not None else []

    def forget(self, run: Run, names: Iterable[str]) -> None:
        """Send these fields of a run again, see `ReportedRun.forget`."""
        reported = self._state.runs.get(run.token)
        if reported is not None:
            reported.forget(names)

    def change_token(self, run: Run, token: str, sent_at: float) -> None:
        """Report a run under another lease. All fields are sent again, since the record may be a new one."""
        reported = self._state.runs.get(run.token)
        if reported is None:
            run.token = token
            return
        with reported.lock:
            self._state.change_token(reported, token, sent_at)

    def _run(self) -> None:
        idle_since = self._clock.monotonic()
        while True:
            pause = self._pause
            due = self._clock.monotonic() + pause
            self._clock.wait(self._wake, pause)
            self._wake.clear()
            self._warn_of_delay(self._clock.monotonic() - due)
            if not self._is_ending and self.beat():
                idle_since = self._clock.monotonic()
            with self._lock:
                is_idle = not self._state.runs and not self._keep_count
                if is_idle and (self._is_ending or self._clock.monotonic() - idle_since > 1.0):
                    self._thread, self._is_ending = None, False
                    return
                self._is_ending = False  # a run was added meanwhile

    def _warn_of_delay(self, seconds: float) -> None:
        """Log why leases may be lost. Those of half their length are renewed in time."""
        if seconds > self._lease / 2 and self._state.runs:
            log.warning(
                "heartbeat delayed by %.0f s, with leases of %g s: code of this process let no other thread or greenlet run, "
                "or the process was suspended",
                seconds,
                self._lease,
            )

    @property
    def _pause(self) -> float:
        """Return the seconds until the next beat: fewer while there is a backlog to sweep or purge."""
        is_behind = self._sweeper.is_behind and not self._outage.is_active
        return min(self.interval, BACKLOG_PAUSE) if is_behind else self.interval

    def beat(self) -> bool:
        """Report the runs, sweep, and write the run history; return whether there was a run or a `retain`."""
        runs = list(self._state.runs.values())
        is_busy = bool(runs or self._keep_count)
        asks = bool(runs) or self._sweeper.is_due
        try:
            self._report(runs)
            for step in self._sweeper.steps:
                run_sync(step())
                self._report_if_due()
            spacing = BUSY_WRITE_INTERVAL if is_busy else IDLE_WRITE_INTERVAL
            self._update_history(runs, spacing, self._clock.monotonic() + self.interval)
            if asks:
                self._outage.answered()
        except StoreError as error:
            self._outage.failed(error)
        except Exception:
            # A defect here must not stop the heartbeat of all runs.
            log.exception("unexpected error in the heartbeat; continuing")
        return is_busy

    def _know_earlier_output(self, run: Run) -> None:
        """Count the output of earlier runs of the job in its ring, before the first text of this run is written."""
        if run._output is not None and run._output.has_earlier:
            run._output.know_earlier(self.store)

    def _report_if_due(self) -> None:
        """Report the runs again if the store was so slow that the next report is due: leases do not wait for a sweep."""
        if self._clock.monotonic() - self._reported_at >= self.interval:
            self._report(list(self._state.runs.values()))

    def _report(self, runs: list[ReportedRun]) -> None:
        """Send reports, log lines and renewals in one round trip, and stop the runs that were stopped in the store."""
        if not runs:
            return
        self._reported_at = self._clock.monotonic()
        for one in runs:
            if one.run._is_finishing and one.run._transaction is not None:
                run_sync(is_over(self.store, one.run))  # a run whose result was rolled back continues
        for one in runs:
            one.lock.acquire()
        try:
            live = [one for one in runs if one.run.token in self._state.runs]
            self._parts.write([one.run for one in live], self._reported_at + self.interval)
            for one in live:
                self._know_earlier_output(one.run)
            beat = self._state.next(live, self._clock.monotonic(), self._clock.time())
            outcomes, states = run_sync(self.store.heartbeat(beat.writes, beat.leases, beat.lease_micros))
            lost = self._state.answered(beat, outcomes, states)
        finally:
            for one in runs:
                one.lock.release()
        for one, token, state in lost:
            if state == "lost" and one.reacquire is not None and one.reacquire(token):
                continue
            one.run.stop(stop_reason(run_sync(self.store.get(one.run.job_id)), token, state))
            self._state.notified(one, self._clock.monotonic())
        run_sync(stop_runs_over_budget(self.store, [one.run for one in live]))

    def _update_history(self, runs: Sequence[ReportedRun], spacing: float, until: float = math.inf) -> None:
        """Read the history of types that run for longer than a moment, write new profiles, and tidy kept results."""
        reported = [one for one in runs if one.forecast is not None and not one.forecast.is_young]
        job_types = dict.fromkeys(one.run.job_type for one in reported)  # in an order that hashes do not decide
        run_sync(self.history.sync(job_types, spacing=spacing))
        self._parts.delete_outdated(until)

    def save(self) -> None:
        """Write the profiles of the last runs before the process ends."""
        if not self._outage.is_active:
            try:
                self._update_history((), 0)
            except StoreError as error:
                log.debug("history of the last runs not written: %s", error)


class LeaseWatch:
    """A thread that stops each run whose lease was not renewed in time.

    It is separate from the heartbeat, which may wait for the store for longer than a lease.
    """

    def __init__(self, state: HeartbeatState, lease: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._state = state
        self._lease = lease
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()
        self._next = 0.0

    def include(self, renewed_at: float) -> None:
        """Watch a run that is in the state from now on."""
        with self._lock:
            if self._thread is None:
                self._next = renewed_at + self._lease
                thread = threading.Thread(target=self._run, name="milepost-lease-watch", daemon=True)
                thread.start()
                self._thread = thread
            elif renewed_at + self._lease < self._next:
                self._changed.set()

    def _run(self) -> None:
        """Wait for the next lease that ends; the thread ends when there was no run for a whole lease."""
        idle = False
        while True:
            self._changed.clear()
            now = self._clock.monotonic()
            ends = self.stop_expired(now)
            with self._lock:
                if idle and not ends:
                    self._thread = None
                    return
                self._next = min([now + self._lease, *ends])
            idle = not ends
            self._clock.wait(self._changed, self._next - now)

    def stop_expired(self, now: float) -> list[float]:
        """Stop the runs whose lease may be over; return the ends of the other leases.

        It is a function of its own so that no local variable keeps a run that ends during the wait.
        """
        expired, ends = self._state.silence(now)
        for one in expired:
            one.run.stop(
                JobReleased("lease not renewed in time: the store was unavailable, or this process stood still")
            )
        return ends
