"""Every order of the events of a worker with two slots and up to four jobs at a time.

Times are whole numbers, so that events also happen exactly at a deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from copy import copy
from itertools import product
from typing import Any, NamedTuple

from milepost.core.job import Job
from milepost.worker import worker_state
from tests.explorer.comparisons import load

SLOTS, ALIVE = 2, 4
DEADLINE, LEASE = 1, 3
"""Within how many ticks a claimed job must start, and how long its lease lasts."""
KINDS = tuple(product((False, True), (0, LEASE - 1)))
"""Whether a claimed job is a suspect, and for how long its claim has been on its way."""


class Event(NamedTuple):
    """What happens to the worker."""

    name: str
    value: Any = None


class Broken(Exception):
    """A rule does not hold."""


def require(holds: bool, text: str) -> None:
    """Raise Broken unless a rule holds."""
    if not holds:
        raise Broken(text)


class Bench:
    """A worker state, and what surrounds it. Executions are the names of their jobs."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.now = 0
        self.made = 0
        self.stopped: frozenset[str] = frozenset()
        self.suspects: frozenset[str] = frozenset()
        self.is_written = True
        self.ends: tuple[int, ...] = ()
        """When jobs finished."""
        self.asked = 0
        """The size of the claim that is on its way."""
        self.state: Any = names["WorkerState"](
            SLOTS, LEASE, needs_exclusive_run=names["is_crash_suspect"], is_stopped=self.is_stopped
        )

    def is_stopped(self, name: str) -> bool:
        return name in self.stopped

    def copied(self) -> Bench:
        """Return a copy that changes independently."""
        new = copy(self)
        new.state = state = copy(self.state)
        state.running = dict(state.running)
        state._ready, state._finished = deque(state._ready), deque(state._finished)
        state._is_stopped = new.is_stopped
        return new

    def key(self) -> Hashable:
        """Return what of the state matters later: names do not, nor how long a time is past."""
        state, age = self.state, lambda time, most: min(most, self.now - time)
        ready = tuple(
            (one.job.job_id in self.suspects, age(one.sent_at, LEASE + 1), age(one.came_at, DEADLINE + 1))
            for one in state._ready
        )
        running = sorted(
            (name in self.suspects, name in self.stopped, name == state._exclusive_token) for name in state.running
        )
        held = None if state.held is None else (state._held is None, state.held in self.stopped)
        recent = tuple(self.now - time for time in self.ends if self.now - time <= DEADLINE)
        return (
            ready, tuple(running), held, recent, state.should_claim, state.stops, state.is_exclusive, self.is_written,
            self.asked,
        )  # fmt: skip

    # --- events ---

    def events(self) -> Iterator[Event]:
        """Yield what may happen now."""
        alive = len(self.state.running) + len(self.state._ready) + (self.state.held is not None)
        yield from (Event("work"), Event("wait"), Event("write", not self.is_written))
        if self.state.stops == 0:
            yield Event("stop worker")
        if not self.asked and self.state.claim_size(self.now, is_writing=False):
            yield Event("ask")
        if self.asked:
            for count in range(min(self.asked, ALIVE - alive, 2) + 1):
                yield from (Event("answer", kinds) for kinds in product(KINDS, repeat=count))
        for name in self.state.running:
            yield Event("end", name)
            if name not in self.stopped:
                yield Event("stop", name)
        if self.state.held is not None and self.state.held not in self.stopped:
            yield Event("stop", self.state.held)

    def happen(self, event: Event) -> None:
        """Let an event happen. Raises Broken if a rule does not hold."""
        state = self.state
        match event.name:
            case "work":
                self._work()
            case "wait":
                self.now += 1
            case "write":
                self.is_written = event.value
            case "stop worker":
                state.stop(1)
            case "ask":
                self.asked = state.claim_size(self.now, is_writing=False)
            case "answer":
                state.claimed(map(self._claimed, event.value), more=len(event.value) >= self.asked)
                self.asked = 0
            case "end":
                state.ended(event.value)
                state.finished(self.now)
                self.ends += (self.now,)
                state.should_claim = True
            case "stop":
                self.stopped |= {event.value}
        self._check()

    def _claimed(self, kind: tuple[bool, int]) -> Any:
        is_suspect, age = kind
        self.made += 1
        name = f"job{self.made}"
        fields = {"type": "t", "status": "running", "created": "1", "token": name} | (
            {"suspect": "1"} if is_suspect else {}
        )
        self.suspects |= {name} if is_suspect else set()
        return self.names["ClaimedJob"](Job.stored(name, fields), self.now - age, self.now)

    def _work(self) -> None:
        """Take all steps that are due, as a worker does."""
        state, Step = self.state, self.names["Step"]
        for _ in range(3 * ALIVE):
            was_exclusive, busy = state.is_exclusive, [one for one in state.running if one not in self.stopped]
            taken = state.next(self.now, lambda: self.is_written)
            if taken is None:
                waits = not state._ready or len(state.running) >= SLOTS or state.stops
                require(waits, "a job waits although a slot is free")
                return
            step, one = taken
            name = one.job.job_id
            require(not state.stops, "a stopped worker takes no step")
            full = len(state.running) >= SLOTS
            late = self.now - one.sent_at >= LEASE or (full and self.now - one.came_at > DEADLINE)
            if step is Step.BEGIN:
                require(not late, "a job begins although it is too late")
                require(not was_exclusive, "a job begins beside a suspect")
                require(name not in self.suspects, "a suspect begins beside others")
                require(len(state.running) < SLOTS, "a job begins without a slot")
                state.started(name, name)
            elif step is Step.HOLD:
                require(not late and not was_exclusive, "a suspect is held too late, or a second one")
                require(name in self.suspects, "a job is held that is no suspect")
                state.hold(name)
            elif step is Step.BEGIN_HELD:
                require(self.is_written, "a suspect begins while an outcome is not written")
                require(not busy, "a suspect begins beside running code")
                require(name not in self.stopped, "a stopped suspect begins")
                state.started(name, name)
            elif step is Step.DROP_HELD:
                require(name in self.stopped, "a suspect is dropped that was not stopped")
                state.started(name, name)
            else:
                require(late or was_exclusive, "a job is released that could begin")
        raise Broken("the steps never end")

    # --- rules ---

    def _check(self) -> None:
        state = self.state
        running = [name for name in state.running if name not in self.stopped]
        require(len(running) <= SLOTS, "more jobs run than there are slots")
        suspects = [name for name in running if name in self.suspects]
        require(not suspects or len(running) == 1, "a suspect runs beside others")
        self._check_claim(False)
        self._check_claim(True)
        free = not state.is_exclusive and len(state.running) + len(state._ready) < SLOTS
        require(state.is_free is free, "is_free is wrong")
        require(state.has_ready is bool(state._ready), "has_ready is wrong")
        require((state.held is None) is (state._held is None), "a suspect that has begun is still held")
        exclusive = state.held is not None or any(name in self.suspects for name in state.running)
        require(state.is_exclusive is exclusive, "is_exclusive is wrong")

    def _check_claim(self, is_writing: bool) -> None:
        state = self.state
        size = self.copied().state.claim_size(self.now, is_writing=is_writing)  # it forgets what has become old
        recent = sum(self.now - time <= DEADLINE for time in self.ends)
        wanted = max(0, SLOTS - len(state.running) - len(state._ready) + recent)
        may = not state.stops and not state.is_exclusive and (state.should_claim or is_writing)
        require(size == (wanted if may else 0), f"a claim asks for {size} jobs, not {wanted if may else 0}")

    def finish(self) -> None:
        """Let all code end and all outcomes be written: no claimed job may be left. Raises Broken."""
        if self.state.stops:
            self.state.clear()
            require(not self.state.has_ready, "a job is left after the drain")
            return
        self.is_written, self.now = True, self.now + LEASE + 1
        for _ in range(2 * ALIVE):
            self._work()
            for name in list(self.state.running):
                self.state.ended(name)
        require(not self.state.has_ready and self.state.held is None, "a claimed job is never begun nor released")
        require(not self.state.is_exclusive, "a worker stays exclusive without a suspect")


class Found(NamedTuple):
    """What an enumeration found: how many states there are, and the events that lead to a broken rule."""

    states: int
    broken: str | None
    path: tuple[Event, ...]


def enumerate_orders(names: dict[str, Any] | None = None, *, depth: int) -> Found:
    """Visit all states that can be reached by at most `depth` events; stop at a broken rule."""
    names = names if names is not None else load(worker_state, START_DEADLINE=DEADLINE)
    start = Bench(names)
    known: set[Hashable] = {start.key()}
    level: list[tuple[Bench, tuple[Event, ...]]] = [(start, ())]
    for _ in range(depth):
        following = []
        for bench, path in level:
            for event in bench.events():
                after = bench.copied()
                try:
                    after.happen(event)
                    key = after.key()
                    if key not in known:
                        known.add(key)
                        following.append((after, (*path, event)))
                        after.copied().finish()
                except (Broken, AssertionError, LookupError, TypeError, AttributeError) as error:
                    return Found(len(known), str(error) or repr(error), (*path, event))
        level = following
        if not level:
            break
    return Found(len(known), None, ())
