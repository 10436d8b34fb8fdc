"""The details of a job, as `milepost show` prints them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from milepost.cli.rendering.job_detail import print_job
from milepost.cli.rendering.live import ended_text
from milepost.core.events import Event
from milepost.core.job import Failure, Job, JobStatus
from milepost.core.values import ItemCounts


def printed(job: Job | Mapping[str, str], events: Sequence[Event] = ()) -> str:
    """Return the details of a job, or of that of a record."""
    out = io.StringIO()
    found = job if isinstance(job, Job) else Job.stored("one", job)
    print_job(Console(file=out, width=160), found, utc=True, short="one", events=events)
    return out.getvalue()


def test_receipt_without_requester_begins_with_method() -> None:
    """The line began with a comma: ", stopped 2.5 s later"."""
    record = {
        "type": "load", "status": "cancelled", "created": "0", "attempt": "1", "completed": "9000000",
        "stop_at": "5000000", "stopped": "7500000", "stop_confirmed": "1", "stop_how": "already_finished",
    }  # fmt: skip
    out = printed(record)
    [line] = [line.split() for line in out.splitlines() if line.lstrip().startswith("stop ")]
    assert line == ["stop", "stopped", "after", "2.5", "s", "(already", "finished)"]


def test_stop_of_a_job_that_was_not_cancelled_is_not_called_a_cancel() -> None:
    """Regression: a job that its worker gave back at a deploy was shown as cancelled by milepost."""
    record = {
        "type": "load", "status": "pending", "created": "0", "attempt": "0", "run_by": "worker",
        "stop_at": "5000000", "stop_by": "milepost",
    }  # fmt: skip
    out = printed(record)
    assert "cancelled" not in out
    assert re.search(r"stop +by milepost, code not yet stopped", out)
    assert "\n  Stopping, waiting for the worker to confirm\n" in out


@pytest.mark.parametrize(
    ("attempt", "limit", "shown"),
    [
        (0, 1, None), (0, 3, "none yet (at most 3)"), (1, 1, "1 of 1"), (2, 3, "2 of 3"),
        (0, 1000, None), (2, 1000, "2"),  # a tracked Celery task, whose retries Celery limits
    ],
)  # fmt: skip
def test_attempts_of_a_job_that_has_not_started(attempt: int, limit: int, shown: str | None) -> None:
    """A job that had not started was shown with "attempt 0 of 1"."""
    job = Job("one", "load", JobStatus.PENDING, 0.0, "", datetime.now(UTC), attempt=attempt, max_attempts=limit)
    out = printed(job)
    found = [line.split(maxsplit=1)[1] for line in out.splitlines() if line.lstrip().startswith("attempt")]
    assert found == ([] if shown is None else [shown])


def test_attempt_of_a_snoozed_job_is_none_charged() -> None:
    """A job that had run and was given back was shown with "attempt none yet"."""
    record = {
        "type": "load", "status": "pending", "created": "0", "attempt": "0", "max_attempts": "3", "run_by": "worker",
        "runs": "5000000\x1f6000000\x1f1\x1fhost-1:4711:1:2\x1f",
    }  # fmt: skip
    released = Event("one", 3, "released", datetime.fromtimestamp(6, UTC), message="Snoozed for 5 s (gate page)")
    out = printed(record, [released])
    assert "running for" not in out  # it was said of every job that had started once
    assert re.search(r"attempt +none charged \(at most 3\)", out)
    assert re.search(r"given back to the queue .*: Snoozed for 5 s \(gate page\)", out)


@pytest.mark.parametrize(("kind", "shown"), [("lost", "lost after"), ("crash_loop", "lost after"), ("error", "took")])
def test_time_until_a_lease_expired_is_no_run_time(kind: str, shown: str) -> None:
    """Regression: a job that was killed after 6 s, and found lost by the first command ten minutes later, "took" ten minutes."""
    times = [datetime.fromtimestamp(second, UTC) for second in (0, 0, 600)]
    job = Job("one", "load", JobStatus.FAILED, 0.0, "", *times, failure=Failure(kind))
    assert re.search(rf"^ *{shown} +10 min 0 s$", printed(job), re.MULTILINE)


def test_usage_is_shown_as_by_milepost_usage() -> None:
    """Regression: amounts were shown as `usd=3e-06`."""
    usage = '{"tokens":1000812000000,"usd":3}'
    out = printed({"type": "load", "status": "completed", "created": "0", "completed": "1", "usage": usage})
    assert re.search(r"^ *usage +tokens=1,000,812  usd=0\.000003$", out, re.MULTILINE)


def test_show_lists_runs_with_worker_release_and_end() -> None:
    record = {
        "type": "load", "status": "running", "created": "0", "attempt": "2", "run_by": "worker", "started": "9000000",
        "worker": "host-2:7:1:2", "release": "2.4.0", "runs": "5000000\x1f6000000\x1f1\x1fhost-1:4711:1:2\x1f2.3.0",
        "labels": ":group=g\x1f:queue=gpu\x1f:after=job:x",
    }  # fmt: skip
    lost = {
        "crashes": "1",
        "error": "lease expired",
        "stages": [{"name": "Load", "done": 5, "total": 10, "unit": "row"}],
    }
    events = [Event("one", 3, "retrying", datetime.fromtimestamp(6, UTC), data=lost)]
    shown = printed(record, events)
    first, second = shown.partition("Runs\n")[2].splitlines()[:2]
    assert re.match(
        r"  1  1970-01-01 00:00:05 UTC  host-1:4711  2\.3\.0  lost .* at 5 of 10 rows in Load: lease expired", first
    )
    assert re.match(r"  2  1970-01-01 00:00:09 UTC  host-2:7     2\.4\.0  running", second)
    for label, value in (("release", "2.4.0"), ("group", "g"), ("queue", "gpu"), ("after", "job:x")):
        assert re.search(rf"{label} +{value}", shown)


def test_run_of_a_suspended_job_is_not_running() -> None:
    """Regression: a job that waited for an answer was shown with a run that is running."""
    record = {
        "type": "load", "status": "pending", "created": "0", "attempt": "1", "run_by": "worker", "started": "9000000",
        "suspended": "9500000", "asking": "ok", "held": "user:answer:ok", "runs": "5000000\x1f6000000\x1f1\x1fhost-1:7:1:2\x1f",
    }  # fmt: skip
    _, second = printed(record).partition("Runs\n")[2].splitlines()[:2]
    assert second.rstrip().endswith("suspended")


def test_run_given_back_and_started_again_at_once_is_not_lost() -> None:
    """Regression: one request gave a job back and claimed it again, and its first run was shown as lost."""
    record = {
        "type": "load", "status": "completed", "created": "0", "attempt": "1", "run_by": "worker", "started": "6000000",
        "completed": "6000000", "worker": "host-1:7:1:2", "runs": "5000000\x1f6000000\x1f1\x1fhost-1:7:1:2\x1f",
    }  # fmt: skip
    kinds = ("running", "released", "running", "completed")
    events = [Event("one", n, kind, datetime.fromtimestamp(6 if n else 5, UTC)) for n, kind in enumerate(kinds)]
    out = printed(record, events)
    first, second = out.partition("Runs\n")[2].splitlines()[:2]
    assert "given back to the queue" in first
    assert "completed" in second


def test_duration_of_a_run_includes_the_time_before_its_first_stage() -> None:
    """Regression: a run that loaded a model for a minute before its first stage was shown as a minute shorter."""
    stage = '[{"name": "Load", "started_at": "1970-01-01T00:01:05+00:00", "ended_at": "1970-01-01T00:01:10+00:00"}]'
    record = {
        "type": "load", "status": "completed", "created": "0", "attempt": "1", "run_by": "worker", "started": "5000000",
        "completed": "70000000", "stages": stage,
    }  # fmt: skip
    out = printed(record)
    assert re.search(r"took +1 min 5 s\n", out)


def test_duration_of_job_with_attempts_includes_all_of_them() -> None:
    record = {
        "type": "load", "status": "completed", "created": "0", "attempt": "2", "run_by": "worker", "started": "9000000",
        "completed": "11000000", "worker": "host-2:7:1:2", "runs": "5000000\x1f6000000\x1f1\x1fhost-1:4711:1:2\x1f2.3.0",
    }  # fmt: skip
    out = printed(record)
    assert re.search(r"took +2.0 s in the last run, 6.0 s since the first start\n", out)
    outcome = ended_text(Job.stored("one", record))
    assert outcome == "Completed after 2.0 s in the last run, 6.0 s since the first start"
    running = {name: text for name, text in record.items() if name != "completed"} | {"status": "running"}
    assert re.search(r"running for +.+ in this run, .+ since the first start\n", printed(running))


def test_counts_of_the_last_run_are_not_shown_beside_the_progress_of_the_next() -> None:
    """Regression: a job given back at a deploy was shown with "0%  Rows  7,914/50,000 rows"."""
    stage = {"name": "Rows", "done": 7914, "total": 50000, "unit": "row", "started_at": "1970-01-01T00:00:05+00:00"}
    record = {
        "type": "load", "status": "pending", "created": "0", "attempt": "0", "run_by": "worker", "stages": json.dumps([stage]),
        "runs": "5000000\x1f6000000\x1f1\x1fhost-1:4711:1:2\x1f",
    }  # fmt: skip
    out = printed(record)
    assert "  0%\n" in out
    assert out.partition("Stages of the last run\n")[2].splitlines()[0].endswith("Rows  7,914/50,000 rows")


def test_unnamed_loop_is_shown_without_its_name() -> None:
    stage = {"name": "items", "done": 3, "total": 10, "unit": "item", "started_at": "1970-01-01T00:00:09+00:00"}
    record = {
        "type": "load", "status": "running", "created": "0", "attempt": "1", "started": "9000000", "progress": "0.3",
        "stages": json.dumps([stage]),
    }  # fmt: skip
    out = printed(record)
    assert "  30%  3/10 items\n" in out


def test_attempt_of_job_with_crashes_only_is_not_called_unstarted() -> None:
    record = {
        "type": "load",
        "status": "failed",
        "created": "0",
        "started": "9000000",
        "attempt": "0",
        "max_attempts": "3",
    }
    out = printed(record)
    assert "none charged (at most 3)" in out


def test_show_says_that_result_was_not_stored() -> None:
    record = {
        "type": "load", "status": "completed", "created": "0", "completed": "9000000",
        "result_error": "result.lock: lock is not JSON-serialisable; convert it", "result_text": "{'lock':\n<lock>}",
    }  # fmt: skip
    out = printed(record)
    lines = [line.strip() for line in out.splitlines()]
    assert "Result not stored: result.lock: lock is not JSON-serialisable; convert it" in lines
    start = lines.index("Text of the result that was not stored")
    assert lines[start + 1 : start + 3] == ["{'lock':", "<lock>}"]
    assert "Result" not in lines


def test_stages_of_unnamed_loops_are_shown_without_a_name() -> None:
    """They were listed as "items  5 items"."""
    begun = {"started_at": "1970-01-01T00:00:01+00:00"}
    done = {"name": "items", "done": 5, "total": 5, "unit": "item", "ended_at": "1970-01-01T00:00:03+00:00", **begun}
    stages = [done, {**done, "name": "Upload", "unit": "file"}, {**begun, "name": "items", "done": 2, "unit": "row"}]
    record = {"type": "load", "status": "running", "created": "0", "attempt": "1", "stages": json.dumps(stages)}
    out = printed(record)
    shown = out.partition("Stages\n")[2].splitlines()[:3]
    assert [line.split(maxsplit=1)[1] for line in shown] == ["5 items · 2.0 s", "Upload  5 files · 2.0 s", "2 rows"]


def test_open_questions_are_shown_with_the_command_that_answers() -> None:
    questions = [
        {"key": "legal", "prompt": "Publish it?", "state": "open"},
        {"key": "price", "prompt": "Which price?", "state": "answered", "answer": 9},
    ]
    record = {
        "type": "load",
        "status": "pending",
        "created": "0",
        "run_by": "worker",
        "questions": json.dumps(questions),
    }
    out = printed(record)
    assert "\nOpen questions\n  legal  Publish it?\n" in out
    assert "Which price?" not in out
    assert "milepost answer one legal VALUE" in out


def test_step_to_answer_names_the_fields_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"approved": {"type": "boolean"}, "note": {"type": "string"}}}
    question = {
        "key": "may I?",
        "prompt": "Publish it?",
        "state": "open",
        "json_schema": schema,
        "expires_at": "1970-01-03T00:00:00+00:00",
    }
    record = {"type": "load", "status": "pending", "created": "0", "questions": json.dumps([question])}
    out = printed(record)
    assert "Publish it?\n          expires 1970-01-03 " in out
    assert """milepost answer one 'may I?' '{"approved": true, "note": "TEXT"}'""" in " ".join(out.split())


def test_failure_of_children_names_the_command_that_shows_them() -> None:
    failed = Failure("error", type="milepost.core.errors.ChildFailedError", message="2 of 8 children did not complete")
    job = Job("one", "import", JobStatus.FAILED, 0.0, "", datetime.now(UTC), failure=failed)
    assert "milepost tree one" in printed(job)
    assert "milepost tree" not in printed(replace(job, failure=replace(failed, type="ValueError")))


def test_running_job_shows_when_it_last_changed() -> None:
    record = {"type": "load", "status": "running", "created": "0", "attempt": "1", "started": "0"}
    changed = datetime.now(UTC) - timedelta(minutes=12)
    out = printed({**record, "updated": str(int(changed.timestamp() * 1_000_000))})
    assert re.search(r"last change +12 min ago", out)


def test_failed_items_that_are_not_listed_are_counted() -> None:
    """Regression: twelve items had failed, and the list of them ended after ten without a word."""
    errors = tuple(f"page-{number}: ValueError: no text in it" for number in range(10))
    counts = ItemCounts(done=88, failed=12, skipped=0, failed_keys=(), first_errors=errors)
    job = Job("one", "load", JobStatus.RUNNING, 0.5, "", datetime.now(UTC), item_counts=counts)
    lines = [line.strip() for line in printed(job).splitlines()]
    assert lines[lines.index("Failed items (12)") + 1 :][9:11] == ["page-9: ValueError: no text in it", "and 2 more"]
    assert "more" not in printed(replace(job, item_counts=replace(counts, failed=10)))
