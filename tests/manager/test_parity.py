"""The blocking and the async API have the same members, parameters and docstrings."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from milepost import AsyncJobManager, AsyncJobs, JobManager, Jobs

PAIRS = [(AsyncJobManager, JobManager), (AsyncJobs, Jobs)]
INTERNAL = {"of", "dispatch", "after_fork"}
"""Members of the async API that only milepost's own code needs."""


def public(cls: type) -> dict[str, Any]:
    """Return the public methods of a class, inherited ones included."""
    return {
        name: member
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_") and name not in INTERNAL
    }


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_blocking_api_has_every_member_of_the_async_api(asynchronous: type, blocking: type) -> None:
    missing = set(public(asynchronous)) - set(public(blocking))
    extra = set(public(blocking)) - set(public(asynchronous))
    assert (missing, extra) == (set(), set())


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_both_apis_have_the_same_parameters(asynchronous: type, blocking: type) -> None:
    for name in set(public(asynchronous)) & set(public(blocking)):
        pair = [list(inspect.signature(getattr(cls, name)).parameters.values()) for cls in (asynchronous, blocking)]
        assert pair[0] == pair[1], name


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_both_apis_have_the_same_docstrings(asynchronous: type, blocking: type) -> None:
    for name in set(public(asynchronous)) & set(public(blocking)):
        texts = [" ".join((getattr(cls, name).__doc__ or "").split()) for cls in (asynchronous, blocking)]
        assert texts[1], name
        assert len({text.replace("``async with", "``with") for text in texts}) == 1, name


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_blocking_api_has_no_coroutines(asynchronous: type, blocking: type) -> None:
    assert [name for name, member in public(blocking).items() if inspect.iscoroutinefunction(member)] == []


@pytest.mark.parametrize(("outer", "inner"), [(AsyncJobs, AsyncJobManager), (Jobs, JobManager)])
def test_jobs_have_every_method_of_their_manager(outer: type, inner: type) -> None:
    assert set(public(inner)) - set(public(outer)) == set()
    for name in set(public(inner)):
        assert inspect.signature(getattr(outer, name)) == inspect.signature(getattr(inner, name)), name


def test_methods_that_are_not_spelled_out_are_typed(tmp_path: Path) -> None:
    """A type checker knows the parameters, the options and the results of the blocking and the delegated methods."""
    program = tmp_path / "typed.py"
    program.write_text(
        """
from milepost import AsyncJobs, Client, JobManager, Jobs

def blocking(jobs: Jobs | JobManager | Client) -> None:
    reveal_type(jobs.create_job)
    jobs.create_job(labels=5)
    jobs.find(limit="x")

async def asynchronous(jobs: AsyncJobs) -> None:
    reveal_type(await jobs.get_job("one"))
    reveal_type(jobs.watch("one"))
"""
    )
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(program)], capture_output=True, text=True)
    assert done.stdout.count("error:") == 2, done.stdout
    assert 'Revealed type is "def (job_id: str | None =' in done.stdout
    assert "labels: typing.Mapping[str, str] | None" in done.stdout
    assert 'Revealed type is "milepost.core.job.Job[Any] | None"' in done.stdout
    assert 'Revealed type is "typing.AsyncIterator[milepost.core.events.Event]"' in done.stdout
