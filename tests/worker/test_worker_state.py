"""What a worker does next with its jobs: the decisions without a store or a clock."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from milepost import Job
from milepost.worker.worker_state import START_DEADLINE, ClaimedJob, Step, WorkerState, is_crash_suspect

LEASE = 30.0
TAKEN = ("x", "y", "z")


def claimed(name: str, *, sent_at: float = 0.0, came_at: float = 0.0, suspect: bool = False) -> ClaimedJob:
    fields = {"type": "t", "status": "running", "created": "1", "token": name} | ({"suspect": "1"} if suspect else {})
    return ClaimedJob(Job.stored(name, fields), sent_at, came_at)


class Driver:
    """A worker without I/O: executions are job ids, and a test says when they end, stop, or are written."""

    def __init__(self, slots: int, *, single: bool = False, max_jobs: int | None = None) -> None:
        self.stopped: set[str] = set()
        self.is_written = True
        self.state: WorkerState[str] = WorkerState(
            slots,
            LEASE,
            needs_exclusive_run=is_crash_suspect,
            is_stopped=lambda name: name in self.stopped,
            single=single,
            max_jobs=max_jobs,
        )

    def steps(self, now: float = 0.0) -> list[tuple[Step, str]]:
        """Take all due steps, as a worker does, and return them."""
        found: list[tuple[Step, str]] = []
        while step := self.state.next(now, lambda: self.is_written):
            action, one = step
            name = one.job.job_id
            if action is Step.HOLD:
                self.state.hold(name)
            elif action is not Step.RELEASE:
                self.state.started(name, name)
            found.append((action, name))
            assert len(found) < 50, "it never comes to an end"
        return found


def driver(*jobs: ClaimedJob, slots: int = 4, running: int = 0) -> Driver:
    made = Driver(slots)
    for name in TAKEN[:running]:
        made.state.started(name, name)
    made.state.claimed(jobs, more=False)
    return made


def test_ready_jobs_start_while_slots_are_free() -> None:
    of = driver(*map(claimed, "abc"), slots=3, running=1)
    assert of.steps() == [(Step.BEGIN, "a"), (Step.BEGIN, "b")]
    assert of.state.has_ready
    assert of.steps() == []
    of.state.ended("x")
    assert of.steps() == [(Step.BEGIN, "c")]


def test_ready_jobs_waiting_too_long_are_returned() -> None:
    of = driver(*map(claimed, "ab"), slots=1, running=1)
    assert of.steps(START_DEADLINE * 2) == [(Step.RELEASE, "a"), (Step.RELEASE, "b")]


def test_ready_job_of_a_busy_loop_starts_late_in_a_free_slot() -> None:
    """Regression: when a handler kept the interpreter busy, the jobs claimed with its own were returned and shown as lost."""
    of = driver(*map(claimed, "abc"), slots=2)
    assert of.steps(START_DEADLINE * 2) == [(Step.BEGIN, "a"), (Step.BEGIN, "b"), (Step.RELEASE, "c")]


def test_returned_job_is_none_of_those_that_the_worker_may_start() -> None:
    """Regression: a worker with `max_jobs` ended after fewer jobs when it had returned some that waited too long."""
    of = Driver(1, max_jobs=2)
    of.state.claimed([claimed("a"), claimed("b")], more=True)
    assert of.steps(now=0.0) == [(Step.BEGIN, "a")]
    assert of.state.is_spent
    assert of.steps(START_DEADLINE * 2) == [(Step.RELEASE, "b")]
    assert not of.state.is_spent
    of.state.ended("a")
    assert of.state.claim_size(START_DEADLINE * 2, is_writing=False) == 1


def test_job_with_expired_lease_is_returned() -> None:
    """Regression: after a late reply to its claim, a worker started a job that another worker was already running."""
    of = driver(claimed("late", came_at=LEASE), claimed("fresh", sent_at=LEASE, came_at=LEASE))
    assert of.steps(LEASE) == [(Step.RELEASE, "late"), (Step.BEGIN, "fresh")]


def test_suspect_waits_until_worker_is_quiet() -> None:
    """Regression: a job that kills its worker always ran beside others, so that it was never charged and killed
    worker after worker.
    """
    of = driver(claimed("good"), claimed("suspect", suspect=True), claimed("other"), claimed("second", suspect=True))
    assert of.steps() == [
        (Step.BEGIN, "good"),
        (Step.HOLD, "suspect"),
        (Step.RELEASE, "other"),
        (Step.RELEASE, "second"),
    ]
    assert of.state.is_exclusive
    assert of.steps() == []
    of.state.ended("good")
    of.is_written = False
    assert of.steps() == []
    of.is_written = True
    assert of.steps(9.0) == [(Step.BEGIN_HELD, "suspect")]


def test_suspect_does_not_wait_for_code_that_ignores_its_stop() -> None:
    of = driver(claimed("suspect", suspect=True), running=1)
    of.stopped.add("x")
    assert of.steps() == [(Step.HOLD, "suspect"), (Step.BEGIN_HELD, "suspect")]


def test_running_suspect_excludes_all_others() -> None:
    """A job that kills its process always had company, so that no crash was charged to it and it was started for ever."""
    of = driver(claimed("suspect", suspect=True))
    assert of.steps() == [(Step.HOLD, "suspect"), (Step.BEGIN_HELD, "suspect")]
    of.state.claimed([claimed("good")], more=True)
    assert (of.state.is_exclusive, of.state.claim_size(0.0, is_writing=True)) == (True, 0)
    assert of.steps() == [(Step.RELEASE, "good")]
    of.state.ended("another")
    assert of.state.is_exclusive
    of.state.ended("suspect")
    of.state.claimed([claimed("good")], more=False)
    assert not of.state.is_exclusive
    assert of.steps() == [(Step.BEGIN, "good")]


def test_suspect_stopped_while_waiting_is_not_started() -> None:
    of = driver(claimed("suspect", suspect=True), running=1)
    assert of.steps() == [(Step.HOLD, "suspect")]
    of.stopped.add("suspect")
    assert of.steps() == [(Step.DROP_HELD, "suspect")]
    of.state.ended("suspect")
    assert of.steps() == []
    assert not of.state.is_exclusive


def test_drain_returns_ready_jobs_once() -> None:
    of = driver(*map(claimed, "ab"))
    of.state.stop(1)
    assert of.steps() == []
    assert [left.job.job_id for left in of.state.clear()] == ["a", "b"]
    assert of.state.clear() == []


def test_claim_is_for_free_slots_and_recent_ends() -> None:
    of = driver(slots=3, running=3)
    of.state.should_claim = True
    assert (of.state.claim_size(1.0, is_writing=False), of.state.is_free) == (0, False)
    of.state.ended("x")
    of.state.finished(1.0)
    assert (of.state.claim_size(1.0, is_writing=False), of.state.is_free) == (2, True)
    assert of.state.claim_size(1.0 + START_DEADLINE * 2, is_writing=False) == 1
    of.state.claimed([claimed("a")], more=False)
    assert of.state.claim_size(2.0, is_writing=False) == 0  # there was no other job
    assert of.steps() == [(Step.BEGIN, "a")]


def test_worker_of_single_job_claims_once() -> None:
    of = Driver(4, single=True)
    assert (of.state.claim_size(0.0, is_writing=False), of.state.is_free) == (1, False)
    of.state.claimed([claimed("only")], more=True)
    assert of.state.claim_size(0.0, is_writing=False) == 0
    assert of.steps() == [(Step.BEGIN, "only")]
    assert of.state.claim_size(0.0, is_writing=False) == 0


class AnyOrder(RuleBasedStateMachine):
    """Two slots and up to four jobs at a time: whatever happens, each job is started or returned once, in bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.of = Driver(2)
        self.now = 0.0
        self.made = 0
        self.waiting: set[str] = set()
        self.suspects: set[str] = set()
        self.is_stopped = False

    @precondition(lambda self: len(self.waiting) + len(self.of.state.running) < 4)
    @rule(suspect=st.booleans(), age=st.sampled_from((0.0, LEASE)))
    def claim(self, suspect: bool, age: float) -> None:
        self.made += 1
        name = f"job{self.made}"
        self.waiting.add(name)
        self.suspects |= {name} if suspect else set()
        job = claimed(name, sent_at=self.now - age, came_at=self.now, suspect=suspect)
        self.of.state.claimed([job], more=True)

    @rule()
    def work(self) -> None:
        running_before = set(self.of.state.running) - self.of.stopped
        for action, name in self.of.steps(self.now):
            assert not self.is_stopped
            assert name in self.waiting
            if action is not Step.HOLD:
                self.waiting.remove(name)
            if action is Step.BEGIN:
                assert name not in self.suspects
            if action is Step.BEGIN_HELD:
                assert self.of.is_written
                assert running_before <= {name}
            if action is Step.DROP_HELD:
                assert name in self.of.stopped

    @rule(seconds=st.sampled_from((0.01, START_DEADLINE * 2)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.of.state.running)
    @rule(first=st.booleans())
    def end(self, first: bool) -> None:
        name = sorted(self.of.state.running)[0 if first else -1]
        self.of.state.ended(name)
        self.of.state.finished(self.now)

    @precondition(lambda self: self.of.state.running or self.of.state.held)
    @rule(held=st.booleans())
    def stop_run(self, held: bool) -> None:
        known = sorted(self.of.state.running)
        name = self.of.state.held if (held and self.of.state.held) or not known else known[0]
        assert name is not None
        self.of.stopped.add(name)

    @rule(is_written=st.booleans())
    def write(self, is_written: bool) -> None:
        self.of.is_written = is_written

    @rule()
    def stop_worker(self) -> None:
        self.is_stopped = True
        self.of.state.stop(1)

    @invariant()
    def bounds_hold(self) -> None:
        state, stopped = self.of.state, self.of.stopped
        assert len(set(state.running) - stopped) <= 2
        alone = [name for name in state.running if name in self.suspects and name not in stopped]
        assert not alone or set(state.running) - stopped == set(alone)
        size = state.claim_size(self.now, is_writing=True)
        assert size >= 0
        assert not (size and (self.is_stopped or state.is_exclusive))


AnyOrder.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
