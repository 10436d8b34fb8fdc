"""What every engine must do, with real workers and a real broker. A test class gives the fixture `stage`, and says what
its engine can do about code that never looks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from milepost import Job
from tests.engines.conftest import ROOT, Broker, Stage


class EngineConformance:
    """The scenarios. `stops_deaf_code`: what a receipt says of code that never looked and was ended; None: nobody can."""

    stops_deaf_code: str | None = None

    # --- an ordinary life ---

    def test_a_submitted_job_runs_there_with_progress_and_a_result(self, stage: Stage) -> None:
        stage.start()
        job = stage.jobs.submit("steps", {"count": 6})
        assert (job.status, job.driver) == ("pending", "engine")
        job = stage.ended(job.job_id)
        assert (job.status, job.result, job.progress, job.attempt) == ("completed", 6, 1.0, 1)
        assert [stage.name for stage in job.stages] == ["Counting"]
        kinds = {event.kind for event in stage.jobs.events(job.job_id)}
        assert {"created", "running", "stage", "checkpoint", "log", "completed"} <= kinds
        assert job.worker is not None
        assert str(os.getpid()) not in job.worker.split(":")
        assert stage.lines().count("step 3") == 1
        _ended_once(stage, job)

    def test_an_async_handler_runs_there_too(self, stage: Stage, tmp_path: Path) -> None:
        stage.start()
        job = stage.jobs.submit("waits", {"gate": str(tmp_path / "gate")})
        stage.says("waits")
        (tmp_path / "gate").touch()
        assert stage.ended(job.job_id).result == "opened"

    def test_many_jobs_each_run_once(self, stage: Stage) -> None:
        stage.start()
        ids = stage.jobs.submit_many("noted", [{"text": str(number)} for number in range(60)])
        for job_id in ids:
            _ended_once(stage, stage.ended(job_id))
        assert sorted(stage.lines()) == sorted(f"noted {number}" for number in range(60))

    def test_a_failure_tells_its_traceback(self, stage: Stage) -> None:
        stage.start()
        job = stage.ended(stage.jobs.submit("fails").job_id)
        assert (job.status, job.error) == ("failed", "this cannot be done")
        assert job.failure is not None
        assert job.failure.type == "ValueError"
        assert 'raise ValueError("this cannot be done")' in (job.failure.traceback or "")
        assert stage.lines() == ["fails"]
        _ended_once(stage, job)

    def test_retries_are_ours_and_never_the_engines_too(self, stage: Stage) -> None:
        stage.start()
        job = stage.ended(stage.jobs.submit("third_time").job_id)
        assert (job.status, job.attempt, job.result) == ("completed", 3, 3)
        assert stage.lines() == ["attempt 1", "attempt 2", "attempt 3"]
        _ended_once(stage, job)

    # --- cancel ---

    def test_a_job_that_is_cancelled_while_it_waits_never_starts(self, stage: Stage) -> None:
        job = stage.jobs.submit("noted", {"text": "never"})
        job = stage.jobs.cancel_job(job.job_id)
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("never started", True)
        stage.start()
        last = stage.jobs.submit("noted", {"text": "after it"})
        stage.ended(last.job_id)
        assert stage.lines() == ["noted after it"]
        assert stage.ended(job.job_id).status == "cancelled"

    def test_a_cancel_reaches_running_code_and_leaves_a_receipt(self, stage: Stage, tmp_path: Path) -> None:
        stage.start()
        for handler, how in (("gated", "cooperative"), ("waits", "task cancelled")):
            job = stage.jobs.submit(handler, {"gate": str(tmp_path / "never")})
            stage.says(handler)
            stage.jobs.cancel_job(job.job_id, "not needed", by="ana")
            job = stage.confirmed(job.job_id)
            assert job.receipt is not None
            assert (job.status, job.receipt.how, job.receipt.requested_by) == ("cancelled", how, "ana")
            _ended_once(stage, job)
        assert stage.ended(stage.jobs.submit("noted").job_id).status == "completed", "the worker goes on"

    def test_code_that_never_looks_is_stopped_by_the_engine_or_said_to_go_on(self, stage: Stage) -> None:
        worker = stage.start()
        job = stage.jobs.submit("deaf")
        stage.says("deaf")
        stage.jobs.cancel_job(job.job_id)
        alive = Path(f"{stage.log}.alive")
        if self.stops_deaf_code is None:
            seen = alive.stat().st_mtime_ns
            stage.until(lambda: alive.stat().st_mtime_ns > seen, "it goes on")
            job = stage.ended(job.job_id)
            assert job.receipt is not None
            assert not job.receipt.confirmed
            stage.kill(worker)
            return
        job = stage.confirmed(job.job_id)
        touched = alive.stat().st_mtime_ns
        assert job.receipt is not None
        assert (job.status, job.receipt.how) == ("cancelled", self.stops_deaf_code)
        time.sleep(0.3)  # it touched the file fifty times a second
        assert alive.stat().st_mtime_ns == touched, "confirmed means that the code has stopped"
        assert stage.ended(stage.jobs.submit("noted").job_id).status == "completed", "the worker goes on"

    # --- faults ---

    def test_a_killed_worker_costs_neither_the_job_nor_its_progress(self, stage: Stage) -> None:
        worker = stage.start()
        job = stage.jobs.submit("steps", {"count": 40})
        stage.says("step 5")
        stage.kill(worker)
        stage.start()
        job = stage.ended(job.job_id)
        assert (job.status, job.result, job.attempt, job.crashes) == ("completed", 40, 1, 1)
        began = [line for line in stage.lines() if line.startswith("began")]
        assert len(began) == 2
        assert began[0].startswith("began at 0 ")
        assert int(began[1].split()[2]) >= 5, "it went on after its checkpoint"
        _ended_once(stage, job)

    def test_what_the_engine_delivers_twice_runs_once(self, stage: Stage, tmp_path: Path) -> None:
        job = stage.jobs.submit("gated", {"gate": str(tmp_path / "gate")})
        stage.app.engine.hand_over(job)
        stage.start(2)
        stage.says("gated")
        stage.app.engine.hand_over(job)
        # The messages are taken in turn: when this one is done, the second and the third have met a live lease.
        assert stage.ended(stage.jobs.submit("noted").job_id).status == "completed"
        (tmp_path / "gate").touch()
        job = stage.ended(job.job_id)
        stage.app.engine.hand_over(job)
        assert stage.ended(stage.jobs.submit("noted").job_id).status == "completed"
        assert [line for line in stage.lines() if line.startswith("gated")] == [f"gated {_pid(job)}"]
        assert job.attempt == 1
        _ended_once(stage, job)

    def test_a_job_that_was_recorded_and_never_handed_over_is_handed_over(self, stage: Stage) -> None:
        """Its submitter is killed between the two."""
        program = (
            f"import os, signal; from {stage.app.__name__} import engine, jobs; "
            "engine.hand_over = lambda job: os.kill(os.getpid(), signal.SIGKILL); "
            "jobs.submit('noted', {'text': 'left'}, job_id='left')"
        )
        environment = {**os.environ, **stage.environment}
        done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=False)
        assert done.returncode == -9
        stage.start()
        job = stage.ended("left")
        assert stage.lines() == ["noted left"]
        _ended_once(stage, job)

    def test_a_submit_while_the_broker_is_down_is_kept(self, stage: Stage, broker: Broker) -> None:
        broker.kill()
        job = stage.jobs.submit("noted", {"text": "kept"})
        record = stage.jobs.get_job(job.job_id)
        assert record is not None
        assert record.status == "pending"
        assert "cannot be reached" in (record.stalled or "")
        broker.start()
        stage.start()
        job = stage.ended(job.job_id)
        assert (job.status, job.stalled) == ("completed", None)
        assert stage.lines() == ["noted kept"]

    def test_what_a_broker_loses_is_sent_again(self, stage: Stage, broker: Broker) -> None:
        """It keeps nothing over its restart: three messages are gone."""
        stage.environment["ENGINE_LOST_AFTER"] = "1"
        ids = stage.jobs.submit_many("noted", [{"text": str(number)} for number in range(3)])
        broker.restart()
        stage.start()
        for job_id in ids:
            _ended_once(stage, stage.ended(job_id))
        assert sorted(stage.lines()) == ["noted 0", "noted 1", "noted 2"]

    def test_a_restart_of_the_broker_disturbs_no_running_job(
        self, stage: Stage, broker: Broker, tmp_path: Path
    ) -> None:
        stage.start()
        job = stage.jobs.submit("gated", {"gate": str(tmp_path / "gate")})
        stage.says("gated")
        broker.restart()
        (tmp_path / "gate").touch()
        job = stage.ended(job.job_id)
        assert (job.status, job.attempt) == ("completed", 1)
        after = stage.ended(stage.jobs.submit("noted", {"text": "after"}).job_id)
        assert after.status == "completed"
        _ended_once(stage, job)


def _ended_once(stage: Stage, job: Job) -> None:
    """A job has one end among its events, and it is the last of its lifecycle."""
    kinds = [event.kind for event in stage.jobs.events(job.job_id)]
    ends = [kind for kind in kinds if kind in ("completed", "failed", "cancelled")]
    assert ends == [job.status.value], kinds


def _pid(job: Job) -> str:
    assert job.worker is not None
    return job.worker.split(":")[1]
