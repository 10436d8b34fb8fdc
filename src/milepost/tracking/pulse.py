"""The pulse: one thread a process and store that carries what runs say, renews their leases and hears who is to stop.

Owns the beat and what of a run is still unsent; knows no job code. One round trip a beat, whatever the number of runs.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from milepost.core.defaults import RENEWALS_PER_LEASE
from milepost.core.encoding import from_json
from milepost.core.errors import JobCancelled, JobReleased, JobTimedOut, LeaseLost, Stop, StoreError
from milepost.core.job import Job, JobStatus
from milepost.core.lifecycle import plan_log, plan_report
from milepost.settings import Settings
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Store, Write
from milepost.tracking.digests import BUSY, IDLE, Digests
from milepost.tracking.outlook import Foreseen, Outlook
from milepost.tracking.sweeper import Sweeper

log = logging.getLogger("milepost.pulse")
log.addHandler(logging.NullHandler())

OnSilence = Literal["stop", "go on"]


class Reporter(Foreseen, Protocol):
    """What the pulse needs of a run: a Run of this process, or what stands for one in a child process."""

    job_id: str
    token: str
    foreseen: Mapping[str, str]

    def report(self) -> dict[str, str]:
        """The fields that the run says of itself now."""

    def take_lines(self) -> str | None:
        """Its log lines since the last call, as JSON."""

    def stop(self, reason: Stop) -> None:
        """Tell its code to stop."""


@dataclass(slots=True)
class _Channel:
    """A run at the pulse. `sent` is what the store is known to have, `waiting` what it was sent without an answer."""

    run: Reporter
    on_silence: OnSilence
    heard_at: float
    digests: Digests
    least_silence: float
    began: float = field(default_factory=time.time)
    outlook: Outlook | None = None
    blind: bool = False
    sent: dict[str, str] = field(default_factory=lambda: {"progress": "0.0"})  # as every start leaves it
    waiting: list[tuple[Write, dict[str, str]]] = field(default_factory=list)
    stages: tuple[tuple[str, bool], ...] = ()
    told: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def collect(self) -> list[tuple[Write, dict[str, str]]]:
        """What is to be sent now: what waits for its answer again, with the same operation ids, else what is new."""
        if self.outlook is None:
            self.outlook = Outlook(self.run, self.began, self.digests, self.least_silence)
        if not self.waiting:
            report, lines = self.news()
            if report:
                kind = self.kind(report)
                plan = plan_report(new_op(), self.run.token, report, kind)
                self.waiting.append((Write(self.run.job_id, plan, answer=False), report))
            if lines is not None:
                plan = plan_log(new_op(), self.run.token, lines)
                self.waiting.append((Write(self.run.job_id, plan, answer=False), {}))
        return self.waiting

    def news(self) -> tuple[dict[str, str], str | None]:
        """What the store does not have yet."""
        said = self.run.report()
        if self.outlook is not None:
            said = {**said, **self.foreseen(self.outlook, said)}
        return {name: text for name, text in said.items() if self.sent.get(name) != text}, self.run.take_lines()

    def foreseen(self, outlook: Outlook, said: Mapping[str, str]) -> Mapping[str, str]:
        """What is to be expected of the run; nothing once that has failed, which must not keep its reports back."""
        if self.blind:
            return {}
        try:
            self.run.foreseen = outlook.look(said, time.time())
            return self.run.foreseen
        except Exception:
            log.exception("job %s: when it will end cannot be foreseen any more", self.run.job_id)
            self.blind = True
            return {}

    def unsent(self) -> Unsent:
        """What the store is not known to have, for the end of the run. Call with the lock held."""
        waiting = [write for write, _ in self.waiting]
        for _, fields in self.waiting:
            self.sent.update(fields)
        report, lines = self.news()
        return Unsent(waiting, report, lines, self.learn)

    def learn(self) -> None:
        """The run has completed: what it took is kept for those that follow."""
        if self.outlook is not None:
            if not self.blind:
                self.outlook.learn(time.time())
        else:
            self.digests.learn_short(self.run.job_type, time.time() - self.began)

    def kind(self, report: dict[str, str]) -> str:
        """Whether a report tells of a stall, or of a stage that began or ended; those events are kept."""
        if "stages" in report:
            stages = tuple((stage["name"], "ended_at" in stage) for stage in from_json(report["stages"]))
            if stages != self.stages:
                self.stages = stages
                return "stage"
        return "stalled" if "stalled" in report else "progress"


class Unsent(NamedTuple):
    """What a run said that the store is not known to have."""

    writes: list[Write]
    """Sent without an answer; to be sent again as they are."""
    report: dict[str, str]
    lines: str | None
    learn: Callable[[], None] = lambda: None
    """To be called when the run has completed."""


class Pulse:
    """The pulse of one store in one process. `add` a run, `remove` it before its end is written."""

    def __init__(self, store: Store, settings: Settings, sweeper: Sweeper) -> None:
        self.store = store
        self.failures = 0
        self._settings = settings
        self._sweeper = sweeper
        self._channels: dict[str, _Channel] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._renew_at = 0.0
        self._keep = 0
        self.digests = Digests(store)

    def add(self, run: Reporter, on_silence: OnSilence, sent_at: float | None = None) -> None:
        """Carry a run from now on. `sent_at` is when its lease was asked for, on the monotonic clock."""
        with self._lock:
            heard_at = time.monotonic() if sent_at is None else sent_at
            self._channels[run.token] = _Channel(run, on_silence, heard_at, self.digests, self._settings.stalled)
            if self._thread is None:
                self._start()

    def keep_sweeping(self, on: bool) -> None:
        """Stay alive without runs, because a worker or a server lives here."""
        with self._lock:
            self._keep += 1 if on else -1
            if on:
                self._start()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._beat_on, name="milepost-pulse", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Beat at once."""
        self._wake.set()

    def remove(self, run: Reporter) -> Unsent:
        """Let a run go, and give what of it is unsent.

        Waits for a beat that is under way, at most one round trip.
        """
        channel = self._channels.pop(run.token, None)
        if channel is None:
            return Unsent([], run.report(), run.take_lines())
        with channel.lock:
            return channel.unsent()

    def try_remove(self, run: Reporter) -> Unsent | None:
        """`remove` for those who must not wait: None when a beat is under way, which carries the run still."""
        channel = self._channels.get(run.token)
        if channel is None:
            return Unsent([], run.report(), run.take_lines())
        if not channel.lock.acquire(blocking=False):
            return None
        try:
            self._channels.pop(run.token, None)
            return channel.unsent()
        finally:
            channel.lock.release()

    def _beat_on(self) -> None:
        idle_since = time.monotonic()
        while True:
            self._wake.wait(self._settings.pulse)
            self._wake.clear()
            channels = list(self._channels.values())
            if channels or self._keep:
                idle_since = time.monotonic()
            try:
                if channels:
                    self._beat(channels)
                drive(self._sweeper.look())
                self._tend(channels, BUSY if channels or self._keep else IDLE)
                self.failures = 0
            except StoreError as error:
                self.failures += 1
                if self.failures == 1:
                    log.warning("the store cannot be reached; runs go on, reports wait: %s", error)
            except Exception:
                # A defect here must not silence every run of the process.
                log.exception("the pulse met an unexpected error; it goes on")
            self._mind_silence(channels)
            with self._lock:
                if not self._channels and not self._keep and time.monotonic() - idle_since > 1.0:
                    self._thread = None
                    return

    def _beat(self, channels: list[_Channel]) -> None:
        """One round trip: reports and log lines, leases, and who is to stop."""
        for channel in channels:
            channel.lock.acquire()
        try:
            live = [c for c in channels if c.run.token in self._channels]
            writes = [item for channel in live for item in channel.collect()]
            sent_at = time.monotonic()
            renew = sent_at >= self._renew_at
            micros = self._settings.lease_micros if renew else None
            leases = [(channel.run.job_id, channel.run.token) for channel in live]
            outcomes, states = drive(self.store.beat([write for write, _ in writes], leases, micros))
            if renew:
                self._renew_at = sent_at + self._settings.lease / RENEWALS_PER_LEASE
            answers = iter(outcomes)
            for channel in live:
                for _, fields in channel.waiting:
                    if next(answers).accepted:
                        channel.sent.update(fields)
                channel.waiting = []
                if renew:
                    channel.heard_at = sent_at
        finally:
            for channel in channels:
                channel.lock.release()
        for channel, state in zip(live, states, strict=True):
            if state != "live" and not channel.told:
                job = drive(self.store.get(channel.run.job_id))
                channel.run.stop(why_stopped(job, channel.run.token, state))
                channel.told = True

    def _tend(self, channels: Sequence[_Channel], spacing: float) -> None:
        """Read and write what is kept of earlier runs, for those that last longer than a moment."""
        wanted = {c.run.job_type for c in channels if c.outlook is not None and not c.outlook.is_young}
        drive(self.digests.tend(wanted, spacing=spacing))

    def save(self) -> None:
        """Write what was learned of the last runs, before the process ends."""
        if not self.failures:
            try:
                self._tend((), 0)
            except StoreError as error:
                log.debug("what the last runs took is not kept: %s", error)

    def _mind_silence(self, channels: list[_Channel]) -> None:
        """A worker's run that the store has not heard of for a lease stops: another may start it now."""
        now = time.monotonic()
        for channel in channels:
            if channel.on_silence == "stop" and now - channel.heard_at > self._settings.lease:
                channel.run.stop(JobReleased("the store cannot be reached"))


def why_stopped(job: Job | None, token: str, state: str) -> Stop:
    """The Stop that a run is to hear, from the record and the state of its lease."""
    if job is None:
        return JobCancelled("the job was deleted") if state == "stopping" else LeaseLost("the job is gone")
    record = job.record
    if record.get("stop_token") != token:
        if state == "stopping":  # its record is gone, and the id has another one by now
            return JobCancelled("the job was deleted")
        return LeaseLost(f"job {job.job_id} is {job.status} under another run")
    if job.status is JobStatus.CANCELLED:
        why = record.get("stop_why")
        return JobCancelled(f"cancelled: {why}" if why else "cancelled")
    if record.get("stop_why") == "timeout":
        return JobTimedOut("the time limit has passed")
    return JobReleased("the worker shuts down")


_pulses: dict[tuple[int, str], Pulse] = {}
_pulses_lock = threading.Lock()


def pulse_of(store: Store, settings: Settings, ttl: float) -> Pulse:
    """The pulse of a store in this process; made at the first call, anew after a fork."""
    key = (os.getpid(), store.url)
    pulse = _pulses.get(key)
    if pulse is not None:
        return pulse
    with _pulses_lock:
        pulse = _pulses.get(key)
        if pulse is None:
            own = store.twin(blocking=True)
            pulse = _pulses[key] = Pulse(own, settings, Sweeper(own, settings, ttl))
        return pulse


def is_beating(store: Store) -> bool:
    """Whether this process has a pulse on the store that sweeps for everybody."""
    pulse = _pulses.get((os.getpid(), store.url))
    return pulse is not None and pulse._thread is not None


@atexit.register
def _save() -> None:
    for (pid, _), pulse in list(_pulses.items()):
        if pid == os.getpid():
            pulse.save()


def _after_fork() -> None:
    global _pulses_lock
    _pulses_lock = threading.Lock()
    _pulses.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
