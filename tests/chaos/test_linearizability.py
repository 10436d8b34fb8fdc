"""Concurrent calls on one job are linearizable on each store; other histories are detected."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from milepost import JobManager, JobStatus
from milepost.core.errors import RejectedError
from milepost.settings import Settings
from tests.chaos.linearizability import Call, is_linearizable

pytestmark = pytest.mark.timing

THREADS, CALLS, ROUNDS = 4, 5, 25
ACTS: dict[str, Callable[[JobManager, str], object]] = {
    "create": lambda jobs, job_id: jobs.create_job(job_id),
    "run": lambda jobs, job_id: jobs.update_job(job_id, status=JobStatus.RUNNING),
    "complete": lambda jobs, job_id: jobs.update_job(job_id, status=JobStatus.COMPLETED),
    "cancel": lambda jobs, job_id: jobs.cancel_job(job_id),
    "delete": lambda jobs, job_id: jobs.delete_job(job_id),
}


def call(jobs: JobManager, job_id: str, do: str) -> Call:
    """Make a call and note its answer."""
    made = time.monotonic()
    if do == "get":
        job = jobs.get_job(job_id)
        return Call(do, job.status.value if job is not None else "none", made, time.monotonic())
    try:
        ACTS[do](jobs, job_id)
        answer = "ok"
    except RejectedError:
        answer = "refused"
    return Call(do, answer, made, time.monotonic())


@pytest.mark.parametrize(
    "kind",
    [
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.service("redis-server")),
        pytest.param("postgres", marks=[pytest.mark.slow, pytest.mark.service("postgresql")]),
    ],
)
def test_concurrent_calls_are_linearizable(kind: str, request: pytest.FixtureRequest) -> None:
    url = "memory://" if kind == "memory" else request.getfixturevalue(f"{kind}_url")
    seed = random.SystemRandom().randrange(1_000_000)
    rng = random.Random(seed)
    with closing(JobManager(url, options=Settings(namespace=f"order{seed}"))) as jobs:
        for number in range(ROUNDS):
            history: list[Call] = []
            plans = [rng.choices(["get", "get", *ACTS], k=CALLS) for _ in range(THREADS)]
            together = threading.Barrier(THREADS)

            def work(plan: list[str], job_id: str, history: list[Call], together: threading.Barrier) -> None:
                together.wait(30)
                history.extend([call(jobs, job_id, do) for do in plan])

            threads = [threading.Thread(target=work, args=(plan, f"j{number}", history, together)) for plan in plans]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert len(history) == THREADS * CALLS
            assert is_linearizable(history), f"seed {seed}: {sorted(history, key=lambda one: one.made)}"


BAD = {
    "two creates": [Call("create", "ok", 0, 1), Call("create", "ok", 0, 1)],
    "completed after its cancel": [
        Call("create", "ok", 0, 1),
        Call("cancel", "ok", 2, 3),
        Call("complete", "ok", 4, 5),
    ],
    "a lost cancel": [
        Call("create", "ok", 0, 1),
        Call("cancel", "ok", 2, 4),
        Call("run", "ok", 2, 4),
        Call("get", "running", 5, 6),
    ],
    "a stale read": [Call("create", "ok", 0, 1), Call("run", "ok", 2, 3), Call("get", "pending", 4, 5)],
}


@pytest.mark.parametrize("history", BAD.values(), ids=BAD)
def test_non_linearizable_history_is_detected(history: list[Call]) -> None:
    assert not is_linearizable(history)


def test_unknown_outcome_may_have_happened() -> None:
    begin = [Call("create", "ok", 0, 1), Call("cancel", None, 2)]
    assert is_linearizable([*begin, Call("get", "cancelled", 5, 6)])
    assert is_linearizable([*begin, Call("get", "pending", 5, 6), Call("complete", "refused", 7, 8)])
    assert not is_linearizable([*begin, Call("get", "cancelled", 5, 6), Call("get", "pending", 7, 8)])
