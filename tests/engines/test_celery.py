"""Celery on Redis: the suite, and the tasks that were there before milepost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost.core.errors import InvalidInput
from tests.engines.conformance import EngineConformance
from tests.engines.conftest import PATIENCE, Stage
from tests.services import RedisServer

pytest.importorskip("celery")

CELERY = (
    "-m", "celery", "-A", "tests.engines.celery_app", "worker", "--concurrency={concurrency}", "--loglevel=INFO",
    "--without-gossip", "--without-mingle",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh_signals() -> Iterator[None]:
    """Each test imports the application anew; the one before it is to hear nothing any more."""
    from celery import signals

    heard = (signals.before_task_publish, signals.task_revoked, signals.worker_ready, signals.worker_shutdown)
    before = [list(signal.receivers) for signal in heard]
    yield
    for signal, receivers in zip(heard, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.fixture
def stage(make_stage: Callable[..., Stage], broker: RedisServer) -> Stage:
    """Celery on a broker of its own, with prefork workers."""
    made = make_stage("tests.engines.celery_app", CELERY, broker.url)
    made.environment["ENGINE_RESULTS"] = broker.url
    return made


class TestConformance(EngineConformance):
    """The prefork pool can be told to terminate a child."""

    stops_deaf_code = "terminated (Celery revoke, SIGTERM)"


class TestTracked:
    """`@tracked` above `@app.task`."""

    @pytest.mark.parametrize("zone", [None, UTC])
    def test_a_task_that_is_to_begin_later_is_recorded_when_it_is_sent(self, stage: Stage, zone: Any) -> None:
        result = stage.app.embed.apply_async((20,), eta=datetime.now(zone) + timedelta(hours=1))
        job = stage.jobs.get_job(result.id)
        assert job is not None
        assert job.status == "pending"

    def test_a_task_that_exists_has_a_record_progress_and_its_result(self, stage: Stage) -> None:
        result = stage.app.embed.delay(20)
        job = stage.jobs.get_job(result.id)
        assert job is not None, "it is recorded when it is sent, under the task's own id"
        assert (job.status, job.job_type, job.params) == ("pending", "shop.embed", {"args": [20], "kwargs": {}})
        stage.start()
        job = stage.ended(result.id)
        assert (job.status, job.result, job.progress) == ("completed", 20, 1.0)
        assert result.get(timeout=PATIENCE) == 20, "and Celery has its result as ever"
        assert stage.lines() == [f"embed {result.id}"]

    def test_one_that_fails_fails_in_both(self, stage: Stage) -> None:
        stage.start()
        result = stage.app.broken.delay()
        job = stage.ended(result.id)
        assert job.failure is not None
        assert (job.status, job.error, job.failure.type) == ("failed", "no such shop", "ValueError")
        assert 'raise ValueError("no such shop")' in (job.failure.traceback or "")
        with pytest.raises(ValueError, match="no such shop"):
            result.get(timeout=PATIENCE)

    def test_its_retries_are_celerys(self, stage: Stage) -> None:
        stage.start()
        result = stage.app.flaky.delay()
        assert result.get(timeout=PATIENCE) == "at last"
        job = stage.ended(result.id)
        assert (job.status, job.attempt, job.result) == ("completed", 3, "at last")
        assert stage.lines() == ["flaky 1", "flaky 2", "flaky 3"]

    def test_a_cancel_reaches_it_and_those_who_wait_for_celery_hear_of_it(self, stage: Stage) -> None:
        from celery.exceptions import TaskRevokedError

        stage.start()
        result = stage.app.embed.delay(100_000)
        stage.says("embed")
        stage.jobs.cancel_job(result.id)
        job = stage.confirmed(result.id)
        assert job.receipt is not None
        assert (job.status, job.receipt.how) == ("cancelled", "cooperative")
        with pytest.raises(TaskRevokedError):
            result.get(timeout=PATIENCE)

    def test_a_revoke_in_celery_is_a_cancel_here(self, stage: Stage) -> None:
        stage.start()
        result = stage.app.long.delay(600)
        stage.says("tracked")
        stage.app.app.control.revoke(result.id, terminate=True, signal="SIGKILL")
        job = stage.confirmed(result.id)
        assert job.receipt is not None
        assert (job.status, job.receipt.requested_by) == ("cancelled", "celery")
        assert job.receipt.how == "terminated (Celery revoke, SIGKILL)"

    def test_a_killed_worker_does_not_lose_it(self, stage: Stage) -> None:
        """It acknowledges late; Celery would wait for its visibility timeout, which is an hour."""
        worker = stage.start()
        result = stage.app.embed.delay(60, 0.05)
        stage.says("embed")
        job_id = result.id
        stage.until(lambda: (job := stage.jobs.get_job(job_id)) is not None and job.progress > 0.05, "it has begun")
        stage.kill(worker)
        stage.start()
        job = stage.ended(job_id)
        assert (job.status, job.result, job.crashes) == ("completed", 60, 1)
        assert result.get(timeout=PATIENCE) == 60
        assert stage.lines() == [f"embed {job_id}"] * 2

    def test_a_message_that_nobody_recorded_is_recorded_when_it_comes(self, stage: Stage) -> None:
        """Its sender has only Celery and the name of the task."""
        import celery

        stage.start()
        sender = celery.Celery(broker=stage.environment["ENGINE_BROKER"], set_as_current=False)
        task_id = sender.send_task("shop.embed", (3,)).id
        stage.says("embed")
        job = stage.ended(task_id)
        assert (job.status, job.result, job.params) == ("completed", 3, {"args": [3], "kwargs": {}})

    def test_its_type_is_published_and_it_can_be_submitted(self, stage: Stage) -> None:
        stage.start()
        stage.until(lambda: any(worker.types for worker in stage.jobs.workers()), "a worker says what it has")
        (worker,) = stage.jobs.workers()
        assert "shop.embed" in worker.types
        known = stage.jobs.job_type("shop.embed")
        assert (known.engine, known.doc) == ("celery", "A task that reports its progress.")
        job = stage.jobs.submit("shop.embed", {"args": [3], "kwargs": {"pause": 0}})
        assert stage.ended(job.job_id).result == 3
        with pytest.raises(InvalidInput, match="pages"):
            stage.jobs.submit("shop.embed", {"pages": 3})

    def test_it_is_still_a_function(self, stage: Stage) -> None:
        assert stage.app.embed(3, 0) == 3
        assert stage.jobs.list_jobs() == []

    def test_what_is_no_task_is_refused(self, stage: Stage) -> None:
        with pytest.raises(InvalidInput, match="above @app"):
            stage.app.tracked(jobs=stage.jobs)(len)


def visibility(
    make_stage: Callable[..., Stage], broker: RedisServer, timeout: float, seconds: float
) -> tuple[int, int]:
    """How often a task of so many seconds begins under a visibility timeout: as it is, and tracked."""
    stage = make_stage("tests.engines.celery_app", CELERY, broker.url)
    stage.environment["ENGINE_VISIBILITY"] = str(timeout)
    stage.start(4)
    stage.start(4)
    bare = stage.app.bare_long.delay(seconds)
    tracked = stage.app.long.delay(seconds)
    job = stage.ended(tracked.id, PATIENCE + seconds)
    assert (job.status, job.attempt, job.result) == ("completed", 1, seconds)
    stage.says("bare", 2)
    assert bare.id
    lines = stage.lines()
    return sum(line.startswith("bare") for line in lines), sum(line.startswith("tracked") for line in lines)


def test_a_visibility_timeout_runs_a_long_task_again_unless_it_is_tracked(
    make_stage: Callable[..., Stage], broker: RedisServer
) -> None:
    """Scaled down; `make test-slow` has the figures that people have."""
    bare, tracked = visibility(make_stage, broker, 2, 8)
    assert bare >= 2
    assert tracked == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_visibility_timeout_of_10_s_and_a_task_of_60_s(make_stage: Callable[..., Stage], broker: RedisServer) -> None:
    bare, tracked = visibility(make_stage, broker, 10, 60)
    assert bare >= 3
    assert tracked == 1
