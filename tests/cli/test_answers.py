"""`milepost answer` before the question, during it, after it has expired, twice at once, and while no process runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from milepost.app import Jobs
from milepost.core.job import Job
from milepost.run.run import Run
from milepost.stores.sync_bridge import run_sync
from tests.cli.stores_fixture import StoreFixture, covers
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing


def publish(run: Run, expires: float = 3600.0) -> str:
    return str(run.ask("publish", "Publish?", bool, expires=expires, default=False))


@covers("answer")
def test_answers_are_exact(where: StoreFixture) -> None:
    with where.manager() as manager:
        jobs = Jobs(manager)
        jobs.job("publish")(publish)

        def get(job_id: str) -> Job:
            job = jobs.get_job(job_id)
            assert job is not None
            return job

        def asked(**params: Any) -> str:
            with jobs.run_workers(concurrency=1):
                job_id = jobs.submit("publish", params).job_id
                until(lambda: get(job_id).questions)
                until(lambda: get(job_id).status != "running")
            return job_id

        def result(job_id: str) -> Any:
            with jobs.run_workers(concurrency=1):
                return jobs.wait(job_id, PATIENCE).result

        early = jobs.submit("publish", {}).job_id
        where.call("answer", early, "publish", "true")
        assert "question 'publish' was answered" in where.error_line("answer", early, "publish", "false", code=1)
        assert result(early) == "True"

        at_once = asked()
        assert "'yes' is not true or false" in where.error_line("answer", at_once, "publish", '"yes"', code=1)
        calls = [where.start("answer", at_once, "publish", value) for value in ("true", "false")]
        ends = [call.finish() for call in calls]
        assert sorted(code for code, _, _ in ends) == [0, 1]
        assert result(at_once) == ("True" if ends[0][0] == 0 else "False")
        (refused,) = (error for code, _, error in ends if code)
        assert "question 'publish' was answered" in refused

        late = asked(expires=0.2)
        expires = get(late).questions[0].expires_at
        assert expires is not None
        until(lambda: run_sync(jobs.store.now()) > datetime.fromisoformat(expires).timestamp() * 1e6)
        where.error_line("answer", late, "publish", "true", code=1)
        assert result(late) == "False"
        assert "Cannot answer job with status completed" in where.error_line("answer", late, "publish", "true", code=1)
