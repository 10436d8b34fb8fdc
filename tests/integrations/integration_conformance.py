"""The conformance suite of task queues, with real workers and a real broker.

A test class provides the fixture `deployment`, and declares what its task queue can do about unresponsive code.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost import Job
from tests.integrations.conftest import ROOT, Broker, Deployment
from tests.redis_server import RedisServer


class CoreConformance:
    """An ordinary life, a stop, and the death of a worker and of the broker. `stops_unresponsive_code` is the receipt's method for killed code, or None if it cannot be killed.

    `workers_end_with_broker`: the workers of a cluster end when its head does. `lists_running_jobs`: a worker knows its running
    jobs.
    """

    stops_unresponsive_code: str | None = None
    workers_end_with_broker = False
    lists_running_jobs = True

    def test_submitted_job_runs_with_progress_and_result(self, deployment: Deployment) -> None:
        deployment.start()
        job = deployment.jobs.submit("steps", {"count": 6})
        assert (job.status, job.run_by) == ("pending", "external")
        job = deployment.ended(job.job_id)
        assert (job.status, job.result, job.progress, job.attempt) == ("completed", 6, 1.0, 1)
        assert [stage.name for stage in job.stages] == ["Counting"]
        kinds = {event.kind for event in deployment.jobs.events(job.job_id)}
        assert {"created", "running", "stage", "checkpoint", "log", "completed"} <= kinds
        assert job.worker is not None
        assert str(os.getpid()) not in job.worker.split(":")
        assert deployment.lines().count("step 3") == 1
        _ended_once(deployment, job)
        assert _read_without_adapter(deployment, job.job_id) == job.to_json().decode()

    def test_cancel_stops_running_code_with_receipt(self, deployment: Deployment, tmp_path: Path) -> None:
        deployment.environment["MILEPOST_GRACE"] = "60"  # within which code has stopped before it is ended by force
        deployment.start()
        for handler, how in (("gated", "cooperative"), ("waits", "task_cancelled")):
            job = deployment.jobs.submit(handler, {"gate": str(tmp_path / "never")})
            deployment.wait_for_lines(handler)
            deployment.jobs.cancel_job(job.job_id, "not needed", by="ana")
            job = deployment.confirmed(job.job_id)
            assert job.receipt is not None
            assert (job.status, job.receipt.how, job.receipt.requested_by) == ("cancelled", how, "ana")
            _ended_once(deployment, job)
        assert deployment.ended(deployment.jobs.submit("noted").job_id).status == "completed", "the worker continues"

    def test_listed_worker_names_its_running_jobs(self, deployment: Deployment, tmp_path: Path) -> None:
        deployment.start()
        job = deployment.jobs.submit("gated", {"gate": str(tmp_path / "never")})
        deployment.wait_for_lines("gated")

        def named() -> list[str]:
            return [job_id for worker in deployment.jobs.workers() for job_id in worker.running]

        expected = [job.job_id] if self.lists_running_jobs else []
        deployment.until(lambda: named() == expected, "its worker names it")
        deployment.jobs.cancel_job(job.job_id)
        deployment.confirmed(job.job_id)
        deployment.until(lambda: not named(), "its worker is free")

    def test_unresponsive_code_is_killed_or_reported(self, deployment: Deployment) -> None:
        worker = deployment.start()
        job = deployment.jobs.submit("deaf")
        deployment.wait_for_lines("deaf")
        deployment.jobs.cancel_job(job.job_id)
        alive = Path(f"{deployment.log}.alive")
        if self.stops_unresponsive_code is None:
            seen = alive.stat().st_mtime_ns
            deployment.until(lambda: alive.stat().st_mtime_ns > seen, "the code continues")
            deployment.until(lambda: (found := deployment.ended(job.job_id).receipt) and found.how, "the receipt tells")
            job = deployment.ended(job.job_id)
            assert job.receipt is not None
            assert (job.status, job.receipt.how, job.receipt.confirmed) == ("cancelled", "still_running", None)
            deployment.kill(worker)
            return
        job = deployment.confirmed(job.job_id)
        touched = alive.stat().st_mtime_ns
        assert job.receipt is not None
        assert (job.status, job.receipt.how) == ("cancelled", self.stops_unresponsive_code)
        time.sleep(0.3)  # it touched the file fifty times a second
        assert alive.stat().st_mtime_ns == touched, "confirmed means that the code has stopped"
        assert deployment.ended(deployment.jobs.submit("noted").job_id).status == "completed", "the worker continues"

    def test_job_and_progress_survive_worker_kill(self, deployment: Deployment) -> None:
        worker = deployment.start()
        job = deployment.jobs.submit("steps", {"count": 40, "pause": 0.15})
        deployment.wait_for_lines("step 5")
        deployment.until(lambda: _progress(deployment, job.job_id) > 0, "progress is seen while the job runs")
        deployment.kill(worker)
        deployment.start()
        job = deployment.ended(job.job_id)
        assert (job.status, job.result, job.attempt, job.crashes) == ("completed", 40, 1, 1)
        began = [line for line in deployment.lines() if line.startswith("began")]
        assert len(began) == 2
        assert began[0].startswith("began at 0 ")
        assert int(began[1].split()[2]) >= 5, "it went on after its checkpoint"
        _ended_once(deployment, job)

    @pytest.mark.parametrize("handler", ["suspends", "suspends_async"])
    def test_suspended_job_holds_no_worker(self, deployment: Deployment, handler: str) -> None:
        worker = deployment.start(1)
        job = deployment.jobs.submit(handler)

        def asks() -> bool:
            found = deployment.jobs.get_job(job.job_id)
            return found is not None and found.status == "pending" and bool(found.questions)

        deployment.until(asks, "the job is suspended by its question")
        assert deployment.ended(deployment.jobs.submit("noted").job_id).status == "completed", "the worker is free"
        deployment.kill(worker)
        deployment.jobs.answer(job.job_id, "ok", True, by="ana")
        deployment.start(1)
        ended = deployment.ended(job.job_id)
        assert (ended.status, ended.result, ended.crashes) == ("completed", {"answer": True, "attempt": 1}, 0)
        assert deployment.lines().count("suspends") == 3, "at first, after the sleep, after the answer"
        kinds = [event.kind for event in deployment.jobs.events(job.job_id)]
        assert kinds.count("suspended") == 2
        _ended_once(deployment, ended)

    @pytest.mark.parametrize("handler", ["parent", "parent_async"])
    def test_parent_resumes_after_children_on_one_slot(self, deployment: Deployment, handler: str) -> None:
        deployment.environment["TEST_LOST_AFTER"] = "2"  # messages of children may have been taken by the killed worker
        worker = deployment.start(1)
        job = deployment.jobs.submit(handler, {"count": 5})
        deployment.wait_for_lines("part")
        deployment.kill(worker)
        deployment.start(1)
        job = deployment.ended(job.job_id)
        assert (job.status, job.result, job.crashes) == ("completed", {"sum": 10, "attempt": 1}, 0)
        children = [one for one in deployment.jobs.list_jobs("part") if one.parent_id == job.job_id]
        assert {(one.status, one.run_by) for one in children} == {("completed", "external")}
        assert sum(one.crashes for one in children) <= 1, "only the child that ran was lost"
        assert len(children) == 5
        _ended_once(deployment, job)

    def test_duplicate_message_runs_once(self, deployment: Deployment, tmp_path: Path) -> None:
        job = deployment.jobs.submit("gated", {"gate": str(tmp_path / "gate")})
        deployment.app.task_queue.send(job)
        deployment.start(2)
        deployment.wait_for_lines("gated")
        deployment.app.task_queue.send(job)
        # The messages are taken in turn: when this one is done, the second and the third have met a live lease.
        assert deployment.ended(deployment.jobs.submit("noted").job_id).status == "completed"
        (tmp_path / "gate").touch()
        job = deployment.ended(job.job_id)
        deployment.app.task_queue.send(job)
        assert deployment.ended(deployment.jobs.submit("noted").job_id).status == "completed"
        assert [line for line in deployment.lines() if line.startswith("gated")] == [f"gated {_pid(job)}"]
        assert job.attempt == 1
        _ended_once(deployment, job)

    def test_broker_restart_keeps_running_jobs(self, deployment: Deployment, broker: Broker, tmp_path: Path) -> None:
        deployment.start()
        job = deployment.jobs.submit("gated", {"gate": str(tmp_path / "gate")})
        deployment.wait_for_lines("gated")
        broker.restart()
        if self.workers_end_with_broker:
            deployment.start()
            deployment.wait_for_lines("gated", 2)
        (tmp_path / "gate").touch()
        job = deployment.ended(job.job_id)
        assert (job.status, job.attempt, job.crashes) == ("completed", 1, int(self.workers_end_with_broker))
        after = deployment.ended(deployment.jobs.submit("noted", {"text": "after"}).job_id)
        assert after.status == "completed"
        _ended_once(deployment, job)


class IntegrationConformance(CoreConformance):
    """All scenarios."""

    def test_async_handler_runs(self, deployment: Deployment, tmp_path: Path) -> None:
        deployment.start()
        job = deployment.jobs.submit("waits", {"gate": str(tmp_path / "gate")})
        deployment.wait_for_lines("waits")
        (tmp_path / "gate").touch()
        assert deployment.ended(job.job_id).result == "opened"

    def test_many_jobs_run_once_each(self, deployment: Deployment) -> None:
        deployment.start()
        ids = deployment.jobs.submit_many("noted", [{"text": str(number)} for number in range(60)])
        for job_id in ids:
            _ended_once(deployment, deployment.ended(job_id))
        assert sorted(deployment.lines()) == sorted(f"noted {number}" for number in range(60))

    def test_failure_has_traceback(self, deployment: Deployment) -> None:
        deployment.start()
        job = deployment.ended(deployment.jobs.submit("fails").job_id)
        assert (job.status, job.error) == ("failed", "this cannot be done")
        assert job.failure is not None
        assert job.failure.type == "ValueError"
        assert 'raise ValueError("this cannot be done")' in (job.failure.traceback or "")
        assert deployment.lines() == ["fails"]
        _ended_once(deployment, job)

    def test_retries_are_milepost_only(self, deployment: Deployment) -> None:
        deployment.start()
        job = deployment.ended(deployment.jobs.submit("third_time").job_id)
        assert (job.status, job.attempt, job.result) == ("completed", 3, 3)
        assert deployment.lines() == ["attempt 1", "attempt 2", "attempt 3"]
        _ended_once(deployment, job)

    def test_job_cancelled_while_pending_never_starts(self, deployment: Deployment) -> None:
        job = deployment.jobs.submit("noted", {"text": "never"})
        job = deployment.jobs.cancel_job(job.job_id)
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("never_started", True)
        deployment.start()
        last = deployment.jobs.submit("noted", {"text": "after it"})
        deployment.ended(last.job_id)
        assert deployment.lines() == ["noted after it"]
        assert deployment.ended(job.job_id).status == "cancelled"

    def test_undispatched_job_is_dispatched_later(self, deployment: Deployment) -> None:
        """Its submitter is killed between the two."""
        program = (
            f"import os, signal; from {deployment.app.__name__} import jobs, task_queue; "
            "task_queue.send = lambda job: os.kill(os.getpid(), signal.SIGKILL); "
            "jobs.submit('noted', {'text': 'left'}, job_id='left')"
        )
        environment = {**os.environ, **deployment.environment}
        done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=False)
        assert done.returncode == -9
        deployment.start()
        job = deployment.ended("left")
        assert deployment.lines() == ["noted left"]
        _ended_once(deployment, job)

    def test_submit_during_broker_outage_runs_later(self, deployment: Deployment, broker: Broker) -> None:
        broker.kill()
        job = deployment.jobs.submit("noted", {"text": "kept"})
        record = deployment.jobs.get_job(job.job_id)
        assert record is not None
        assert record.status == "pending"
        assert "cannot be reached" in (record.stalled or "")
        broker.start()
        deployment.start()
        job = deployment.ended(job.job_id)
        assert (job.status, job.stalled) == ("completed", None)
        assert deployment.lines() == ["noted kept"]

    def test_lost_message_is_sent_again(self, deployment: Deployment, broker: Broker) -> None:
        """It keeps nothing over its restart: three messages are gone."""
        deployment.environment["TEST_LOST_AFTER"] = "1"
        ids = deployment.jobs.submit_many("noted", [{"text": str(number)} for number in range(3)])
        broker.restart()
        deployment.start()
        for job_id in ids:
            _ended_once(deployment, deployment.ended(job_id))
        assert sorted(deployment.lines()) == ["noted 0", "noted 1", "noted 2"]

    @pytest.mark.slow
    def test_messages_during_store_outage_run_after_it(
        self, deployment: Deployment, start_redis: Callable[..., RedisServer]
    ) -> None:
        """Messages that arrived during an outage of the store were dropped, and their jobs waited for an hour."""
        store = start_redis(appendonly="always")
        deployment.environment["MILEPOST_URL"] = store.url
        ids = deployment.jobs.submit_many("noted", [{"text": str(number)} for number in range(3)])
        dispatcher = deployment.jobs.dispatcher
        assert dispatcher is not None
        deployment.until(lambda: not dispatcher.has_unrecorded, "the record says that the messages were sent")
        store.kill()
        deployment.start()
        deployment.wait_for_lines("put back")
        store.start()
        for job_id in ids:
            job = deployment.ended(job_id)
            assert (job.status, job.attempt, job.crashes) == ("completed", 1, 0)
            _ended_once(deployment, job)
        assert sorted(line for line in deployment.lines() if line.startswith("noted")) == [
            "noted 0",
            "noted 1",
            "noted 2",
        ]


def _ended_once(deployment: Deployment, job: Job) -> None:
    """Check that a job has one end among its events, and that it is the last of its lifecycle."""
    kinds = [event.kind for event in deployment.jobs.events(job.job_id)]
    ends = [kind for kind in kinds if kind in ("completed", "failed", "cancelled")]
    assert ends == [job.status.value], kinds


def _read_without_adapter(deployment: Deployment, job_id: str) -> str:
    """Return a record as a program reads it that knows the store only: neither the application nor its task queue."""
    program = (
        "import sys; from milepost import Jobs; job = Jobs().get_job(sys.argv[1]); "
        "loaded = [name for name in sys.modules if name.startswith('milepost.integrations.')]; "
        "print(job.to_json().decode() if loaded in ([], ['milepost.integrations.mapping']) else loaded)"
    )
    environment = {name: text for name, text in deployment.environment.items() if name.startswith("MILEPOST_")}
    done = subprocess.run(
        [sys.executable, "-c", program, job_id],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _progress(deployment: Deployment, job_id: str) -> float:
    job = deployment.jobs.get_job(job_id)
    return 0.0 if job is None or job.is_terminal else job.progress


def _pid(job: Job) -> str:
    assert job.worker is not None
    return job.worker.split(":")[1]
