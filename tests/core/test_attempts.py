"""The attempts that a record keeps."""

from __future__ import annotations

from milepost.core.values import attempts_of


def test_last_run_of_crash_loop_has_a_number() -> None:
    """The end takes back the number of the run, so the run itself was listed as attempt 0."""
    record = {"started": "1000000", "completed": "2000000", "attempt": "0", "worker": "w"}
    assert [one.attempt for one in attempts_of(record)] == [1]


def test_job_that_never_started_has_no_attempts() -> None:
    assert attempts_of({"attempt": "0"}) == ()
