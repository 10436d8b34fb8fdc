"""Which claimed jobs a worker starts: the decisions without a store or a clock."""

from __future__ import annotations

from milepost import Job
from milepost.worker.admission import START_DEADLINE, Admission, ClaimedJob, Step, is_crash_suspect

LEASE = 30.0


def claimed(name: str, *, sent_at: float = 0.0, came_at: float = 0.0, suspect: bool = False) -> ClaimedJob:
    fields = {"type": "t", "status": "running", "created": "1", "token": name} | ({"suspect": "1"} if suspect else {})
    return ClaimedJob(Job.stored(name, fields), sent_at, came_at)


def admission(*jobs: ClaimedJob, slots: int = 4) -> Admission:
    made = Admission(slots, LEASE, is_crash_suspect)
    made.add(jobs)
    return made


def steps(of: Admission, *, now: float = 0.0, running: int = 0, quiet: bool = True) -> list[tuple[Step, str]]:
    """Return all due steps, as a worker takes them: a started job takes a slot."""
    found: list[tuple[Step, str]] = []
    while step := of.next(now, running, lambda: quiet):
        action, job = step
        running += action in (Step.BEGIN, Step.BEGIN_EXCLUSIVE)
        found.append((action, job.job.job_id))
        assert len(found) < 50, "it never comes to an end"
    return found


def test_ready_jobs_start_while_slots_are_free() -> None:
    of = admission(*map(claimed, "abc"), slots=3)
    assert steps(of, running=1) == [(Step.BEGIN, "a"), (Step.BEGIN, "b")]
    assert len(of) == 1
    assert steps(of, running=3) == []
    assert steps(of, running=2) == [(Step.BEGIN, "c")]


def test_ready_jobs_waiting_too_long_are_returned() -> None:
    of = admission(*map(claimed, "ab"), slots=1)
    assert steps(of, now=START_DEADLINE * 2, running=1) == [(Step.RELEASE, "a"), (Step.RELEASE, "b")]


def test_job_with_expired_lease_is_returned() -> None:
    """Regression: after a late reply to its claim, a worker started a job that another worker was already running."""
    of = admission(claimed("late", came_at=LEASE), claimed("fresh", sent_at=LEASE, came_at=LEASE))
    assert steps(of, now=LEASE) == [(Step.RELEASE, "late"), (Step.BEGIN, "fresh")]


def test_suspect_waits_until_worker_is_quiet() -> None:
    of = admission(claimed("good"), claimed("suspect", suspect=True), claimed("other"), claimed("second", suspect=True))
    assert steps(of, quiet=False) == [
        (Step.BEGIN, "good"),
        (Step.HOLD, "suspect"),
        (Step.RELEASE, "other"),
        (Step.RELEASE, "second"),
    ]
    assert of.is_exclusive
    assert steps(of, running=1, quiet=False) == []
    assert steps(of, now=9.0) == [(Step.BEGIN_EXCLUSIVE, "suspect")]


def test_running_suspect_excludes_all_others() -> None:
    of = admission(claimed("suspect", suspect=True))
    assert steps(of) == [(Step.HOLD, "suspect"), (Step.BEGIN_EXCLUSIVE, "suspect")]
    of.add([claimed("good")])
    assert of.is_exclusive
    assert steps(of, running=1) == [(Step.RELEASE, "good")]
    of.ended("another")
    assert of.is_exclusive
    of.ended("suspect")
    of.add([claimed("good")])
    assert not of.is_exclusive
    assert steps(of) == [(Step.BEGIN, "good")]


def test_suspect_stopped_while_waiting_is_not_started() -> None:
    of = admission(claimed("suspect", suspect=True))
    assert of.next(0.0, 1, lambda: False) == (Step.HOLD, claimed("suspect", suspect=True))
    of.ended("suspect")
    assert steps(of) == []
    assert not of.is_exclusive


def test_drain_returns_ready_jobs_once() -> None:
    of = admission(*map(claimed, "ab"))
    assert [left.job.job_id for left in of.clear()] == ["a", "b"]
    assert of.clear() == []
    assert steps(of) == []
