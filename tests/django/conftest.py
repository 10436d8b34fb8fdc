"""The commands of a Django project, run with the Python and the stores of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.django.environments import ROOT, django6_python
from tests.postgres_server import PostgresServer

PROJECT = Path(__file__).parent / "project"
SOURCE_PROJECT = Path(__file__).parent / "source_project"


@dataclass(frozen=True, slots=True)
class Project:
    """The test project under one Python, with the addresses of its stores in its environment."""

    python: str
    environment: dict[str, str]

    def run(self, *arguments: str, folder: Path = PROJECT) -> str:
        """Run a program of the project, with warnings as errors, and return its output."""
        done = subprocess.run(
            [self.python, "-W", "error", *arguments],
            cwd=folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


MakeProject = Callable[[str], Project]


@pytest.fixture
def make_project(tmp_path: Path, postgres_server: PostgresServer, redis_url: str, redis_namespace: str) -> MakeProject:
    """Return a function that returns the project for a Python."""

    def make(python: str) -> Project:
        database = {"NAME": "postgres", "USER": "postgres", "HOST": "127.0.0.1", "PORT": str(postgres_server.port)}
        variables = {
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(PROJECT))),
            "DJANGO_SETTINGS_MODULE": "settings",
            "TEST_DATABASE": json.dumps(database),
            "TEST_DATABASE_NAME": f"test_{redis_namespace}_{os.getpid()}",
            "TEST_SQLITE": f"sqlite:///{tmp_path / 'jobs.db'}",
            "TEST_REDIS": redis_url,
            "TEST_NAMESPACE": redis_namespace,
        }
        return Project(python, {**os.environ, **variables})

    return make


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    """Return the project with Django 5.2 and django-tasks, in this environment."""
    return make_project(sys.executable)


@pytest.fixture
def project6(make_project: MakeProject) -> Project:
    """Return the project with Django 6, in its own environment."""
    return make_project(django6_python())
