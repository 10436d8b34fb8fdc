"""Handlers that fork: the copy of the worker ends with their code, and the job is the parent's."""

from __future__ import annotations

import os

import pytest

from tests.waiting import PATIENCE
from tests.worker import forking
from tests.worker.conftest import Workers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_ends_with_the_code_of_its_handler(workers: Workers) -> None:
    """Regression: the child lived on as a copy of the worker, so a parent that waited for it hung.

    In a process of its own, the child ended the job of its parent.
    """
    workers.start(module="tests.worker.forking")
    jobs = workers.jobs()
    codes = {"returns": 0, "exits": 3, "raises": 1}
    for handler in (forking.in_thread, forking.in_task, forking.in_process, forking.in_task_of_process):
        for way, code in codes.items():
            job = jobs.wait(jobs.submit(handler, way=way), PATIENCE)
            assert (job.status, job.result) == ("completed", f"child {code}"), (job.job_type, way, job.error)
    jobs.close()
