"""The tasks backend in a Django project: its suite, run by `manage.py test`, with Django 5.2 and with Django 6."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import pytest

from milepost import Jobs, Run
from tests.django.conftest import SOURCE_PROJECT, Project
from tests.django.environments import ROOT, django_task_tests

pytestmark = pytest.mark.service("postgresql")

TEST = ("manage.py", "test", "--pattern", "suite*.py")


@pytest.mark.timing
def test_suite_with_django_tasks(project: Project) -> None:
    out = project.run(*TEST, "blog.suite_admin", "blog.suite_checks", "blog.suite.Validation", "blog.suite.PostgreSQL")
    assert "OK" in out


@pytest.mark.slow
@pytest.mark.service("python3.13")
def test_suite_with_django6(project6: Project) -> None:
    assert "OK" in project6.run(*TEST)


@pytest.mark.slow
@pytest.mark.service("python3.13")
def test_tests_of_django(project6: Project, sqlite_url: str) -> None:
    folders = (ROOT / "src", SOURCE_PROJECT, django_task_tests().parent)
    project6.environment.update({"MILEPOST_URL": sqlite_url, "PYTHONPATH": os.pathsep.join(map(str, folders))})
    out = project6.run("-m", "django", "test", "--pattern", "suite.py", folder=SOURCE_PROJECT)
    assert re.search(r"Ran 64 tests in .*\n\nOK", out), out


ENQUEUE = """
import django; django.setup()
from blog import tasks
from milepost.django.tasks_api import task_backends
result = tasks.add.using(backend="sqlite", labels={"user": "ana"}).enqueue(3, right=4)
print(task_backends["sqlite"].jobs.get_job(result.id).to_json().decode())
"""


def test_record_is_complete_without_the_adapter(project: Project) -> None:
    shown: dict[str, Any] = json.loads(project.run("-c", ENQUEUE))
    assert "milepost.django" not in sys.modules
    jobs = Jobs(project.environment["TEST_SQLITE"])
    job = jobs.get_job(shown["job_id"])
    assert job is not None
    assert job.to_dict() == shown

    @jobs.job("blog.tasks.add", queue="default")
    def add(run: Run, args: list[int], kwargs: dict[str, int]) -> int:
        return sum(args) + sum(kwargs.values())

    with jobs.run_workers():
        assert jobs.wait(job).result == 7
    jobs.close()
