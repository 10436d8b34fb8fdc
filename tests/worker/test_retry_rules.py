"""Which errors of a handler are retried, after which delay, and which never are."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from milepost import Backoff, Fail, InvalidInputError, Jobs, Retry, Run
from tests.worker import application
from tests.worker.job_assertions import ended


class TemporaryError(Exception):
    """An error that passes."""


@pytest.mark.parametrize(
    ("options", "error", "attempts"),
    [
        ({}, ValueError("x"), 2),
        ({}, Fail("the file is encrypted"), 1),
        ({"retry_on": TemporaryError}, TemporaryError("x"), 2),
        ({"retry_on": (TemporaryError, OSError)}, ConnectionError("x"), 2),
        ({"retry_on": TemporaryError}, ValueError("x"), 1),
        ({"no_retry_on": ValueError}, ValueError("x"), 1),
        ({"no_retry_on": ValueError}, KeyError("x"), 2),
        ({"retry_on": Exception, "no_retry_on": (ValueError, KeyError)}, KeyError("x"), 1),
        ({"retry_on": TemporaryError}, Retry(), 2),
        ({"no_retry_on": Exception}, Retry(), 2),
        ({"retry_on": Exception}, Fail("no"), 1),
        ({"retry_on": TemporaryError}, ExceptionGroup("g", [TemporaryError("x")]), 2),
        ({"retry_on": TemporaryError}, ExceptionGroup("g", [TemporaryError("x"), ValueError("x")]), 1),
        ({}, ExceptionGroup("g", [ExceptionGroup("g", [Fail("no")])]), 1),
        ({"no_retry_on": Exception}, ExceptionGroup("g", [Retry()]), 2),
        ({"retry_on": ExceptionGroup}, ExceptionGroup("g", [ValueError("x")]), 2),
        ({"no_retry_on": ExceptionGroup}, ExceptionGroup("g", [ValueError("x")]), 1),
    ],
)
@pytest.mark.parametrize("kind", ["thread", "async"])
def test_rules_decide_about_another_attempt(
    jobs: Jobs, kind: str, options: dict[str, Any], error: Exception, attempts: int
) -> None:
    decorate = jobs.job("flaky", max_attempts=2, backoff=lambda attempt: 0, **options)
    if kind == "thread":

        @decorate
        def flaky(run: Run) -> None:
            raise error
    else:

        @decorate
        async def flaky(run: Run) -> None:
            raise error

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(flaky))
    assert (job.status, job.attempt) == ("failed", attempts)
    if isinstance(error, Fail):
        assert job.error == str(error)


@pytest.mark.parametrize(
    ("error", "status", "attempt"),
    [("value", "completed", 2), ("retry", "completed", 2), ("key", "failed", 1), ("fail", "failed", 1)],
)
def test_rules_hold_in_child_process(jobs: Jobs, error: str, status: str, attempt: int) -> None:
    jobs.handlers.add(application.isolated_rules)
    with jobs.run_workers():
        job = ended(jobs, jobs.submit(application.isolated_rules, error))
    assert (job.status, job.attempt) == (status, attempt)


def test_timeout_follows_the_rules(jobs: Jobs) -> None:
    @jobs.job("slow", max_attempts=2, timeout=0.2, retry_on=TemporaryError)
    def slow(run: Run) -> None:
        while True:
            run.check()

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(slow))
    assert (job.status, job.attempt) == ("failed", 1)


def test_backoff_function_sets_the_delay(jobs: Jobs) -> None:
    asked: list[int] = []

    def delay(attempt: int) -> str:
        asked.append(attempt)
        return "10ms"

    @jobs.job("flaky", max_attempts=3, backoff=delay)
    def flaky(run: Run) -> None:
        raise ValueError

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(flaky))
    assert job.attempt == 3
    assert asked[:2] == [1, 2]
    assert [event.kind for event in jobs.events(job.job_id)].count("retrying") == 2


def test_failing_backoff_function_uses_the_default(
    jobs: Jobs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)

    def delay(attempt: int) -> float:
        raise RuntimeError("no idea")

    @jobs.job("flaky", max_attempts=2, backoff=delay)
    def flaky(run: Run) -> int:
        if run.attempt == 1:
            raise ValueError
        return run.attempt

    with caplog.at_level(logging.WARNING), jobs.run_workers():
        assert ended(jobs, jobs.submit(flaky)).result == 2
    assert "no idea; using the default" in caplog.text


def test_backoff_grows_up_to_its_maximum() -> None:
    delays = Backoff(first=2, factor=3, maximum="1m", jitter=False)
    assert [delays(attempt) for attempt in range(1, 6)] == [2, 6, 18, 54, 60]
    assert Backoff(first=timedelta(minutes=2), maximum="10m", jitter=False)(1) == 120
    assert 0 <= Backoff()(1) <= 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"retry_on": "ValueError"}, "retry_on"),
        ({"no_retry_on": (ValueError, 3)}, "no_retry_on"),
        ({"backoff": 5}, "backoff"),
        ({"retries": 3}, "retries"),
    ],
)
def test_wrong_rule_is_rejected_at_registration(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^{field}: "):
        Jobs("memory://").job("x", **options)


def test_wrong_backoff_is_rejected() -> None:
    with pytest.raises(InvalidInputError, match=r"^backoff\.factor"):
        Backoff(factor=0.5)
    with pytest.raises(InvalidInputError, match=r"^backoff\.first"):
        Backoff(first="soon")
