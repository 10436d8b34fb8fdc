"""Secret parameters in reports: masked before texts are cut or joined into one line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from milepost import Jobs, Run, Secret
from milepost.run.crash_report import secret_values_of
from milepost.testing import FakeRun, fake_run
from tests.waiting import PATIENCE
from tests.worker.job_assertions import ended

pytestmark = pytest.mark.timing

KEY = "-----BEGIN KEY-----\nMIIEow1AbCd\nEfGhIjKl2mN\n-----END KEY-----"
TOKEN = "tok_abcdefghijklmnop"
PARTS = ("MIIEow1", "EfGhIjKl2", "tok_a")


def secretive(**secrets: str) -> FakeRun:
    """Return a run with secret parameters."""
    run = fake_run()
    run._secret_values = secret_values_of(json.dumps(secrets), "\x1f".join(secrets))
    return run


def test_record_of_failed_job_shows_no_secret(jobs: Jobs) -> None:
    """Regression: a private key was visible in the message, a stage and the crash report, and so was the start of a cut
    token.
    """
    said: list[str] = []

    @jobs.job("secretive")
    def handler(run: Run, key: Secret, token: Secret) -> None:
        run.progress(0.1, f"using {key}")
        said.append(run.message)
        run.progress(0.1, "x" * 1010 + token)
        said.append(run.message)
        run.log("x" * 4090 + token)
        run.log("x" * 65_530 + token)
        with run.stage("y" * 185 + token), run.stage(f"with {key}"):
            for item in run.each([f"{key}", "z" * 190 + token], key=str, stage=f"Over {key}"):
                with run.item(item):
                    raise ValueError("v" * 280 + token)
        run.map(str, [f"m {key}"], key=str, errors="collect")
        with run.stage(f"last {key}"):
            raise RuntimeError(f"boom {key} {[token]} {json.dumps([key])} {[key]}")

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(handler, key=KEY, token=TOKEN))
    assert job.status == "failed"
    shown = json.dumps([job.to_dict(), said, [event.data for event in jobs.events(job.job_id)]], default=str)
    assert [part for part in PARTS if part in shown] == []
    assert job.failure is not None
    assert job.failure.last_item is not None
    assert job.item_counts is not None
    assert job.item_counts.failed_keys[1] == "z" * 190 + "***"


def test_batch_that_a_handler_fails_shows_no_secret(jobs: Jobs) -> None:
    """Regression: the error of a batch showed a secret that was masked in the error of the job."""

    @jobs.job("fill")
    def fill(run: Run, token: Secret) -> None:
        with jobs.batch("import"):
            raise ValueError(f"401 for /?key={token}")

    with jobs.run_workers():
        ended(jobs, jobs.submit(fill, token=TOKEN))
    assert jobs.wait("import", PATIENCE).error == "ValueError: 401 for /?key=***"


def test_child_with_another_secret_shows_none(jobs: Jobs) -> None:
    """Regression: the error of a parent, whose child had another secret in each attempt, showed both of them."""

    @jobs.job("child")
    def child(run: Run, token: Secret) -> None: ...

    @jobs.job("parent", max_attempts=2, backoff=lambda attempt: 0)
    def parent(run: Run) -> None:
        run.submit_child("k", child, token=f"{TOKEN}{run.attempt}")
        run.join()
        raise ValueError("again")

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(parent))
    assert job.error is not None
    assert "now with" in job.error
    shown = json.dumps([job.to_dict(), [event.data for event in jobs.events(job.job_id)]], default=str)
    assert "tok_a" not in shown


@pytest.mark.parametrize("form", [str, repr, json.dumps, lambda text: text.replace("\n", " ")])
def test_encodings_of_secret_are_masked(form: Any) -> None:
    secret = 'a "b"\\\nc\u00e9d'
    run = secretive(secret=secret)
    run.progress(message=f"<{form(secret)}>")
    assert "c" not in run.message
    assert run.message.startswith("<")


def test_lines_of_multiline_secret_are_masked() -> None:
    """Regression: `print(private_key)` in a run with captured output showed each of its lines."""
    run = secretive(key=KEY)
    for line in KEY.splitlines():
        run.log(line)
    assert list(run.recent_log) == ["***"] * 4


def test_failed_items_named_by_secret_can_be_retried() -> None:
    run = secretive(token=TOKEN)
    items = [f"a-{TOKEN}", "b"]
    for item in run.each(items, key=str):
        with run.item(item):
            if item != "b":
                raise ValueError
    again = fake_run(only=run.ledger.failed_keys)
    again._secret_values = run._secret_values
    assert list(again.each(items, key=str)) == items[:1]
    assert again.map(str.upper, items, key=str) == [items[0].upper(), None]
