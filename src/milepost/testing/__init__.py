"""Fakes for the tests of applications, and the conformance suite for stores (which needs pytest and Hypothesis)."""

import sys

from milepost.testing.fakes import FakeAsyncRun, FakeRun, FrozenClock, fake_async_run, fake_run
from milepost.testing.jobs_under_test import (
    AsyncJobsUnderTest,
    JobsUnderTest,
    async_jobs_under_test,
    jobs_under_test,
)

if "pytest" in sys.modules:  # assertion rewriting must be registered before the import
    sys.modules["pytest"].register_assert_rewrite("milepost.testing.conformance")

__all__ = [
    "AsyncJobsUnderTest",
    "FakeAsyncRun",
    "FakeRun",
    "FrozenClock",
    "JobsUnderTest",
    "async_jobs_under_test",
    "fake_async_run",
    "fake_run",
    "jobs_under_test",
]
