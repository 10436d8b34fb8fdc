"""Steps under kills, with a tenth of the numbers of `make soak`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from milepost import Jobs
from tests.chaos.parent_runs import store
from tests.chaos.step_kills import add_handlers, run_under_kills, wrong
from tests.waiting import PATIENCE


def test_wrong_calls_are_found(tmp_path: Path) -> None:
    jobs, ledger = Jobs("memory://"), tmp_path / "calls"
    add_handlers(jobs)
    with jobs.run_workers():
        job_id = jobs.wait(jobs.submit("steps", {"ledger": str(ledger)}), PATIENCE).job_id
    lines = ledger.read_text().splitlines()

    def problems(*written: str, lost: int = 0) -> str:
        ledger.write_text("\n".join(written))
        return " ".join(wrong(jobs, [job_id], Counter({job_id: lost}), ledger)[0])

    repeated = f"{job_id} 5 {lines[5].split()[2]} first"
    assert problems(*lines) == problems(repeated, *lines, lost=1) == ""
    assert "1 calls too many, 0 interruptions" in problems(repeated, *lines)
    assert "called although its value was kept" in problems(*lines, repeated, lost=1)
    assert "began with a value that was replaced" in problems(f"{job_id} 5 other first", *lines, lost=1)
    assert "a step was not called" in problems(*lines[:-1])
    jobs.close()


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        pytest.param("redis", marks=pytest.mark.service("redis-server")),
        pytest.param("postgres", marks=pytest.mark.service("postgresql")),
    ],
)
def test_killed_runs_repeat_at_most_the_step_under_way(kind: str, tmp_path: Path) -> None:
    with store(kind) as (url, _):
        problems, interrupted, repeated, _ = run_under_kills(url, tmp_path / "calls", 100)
    assert problems == []
    assert interrupted >= 100
    assert repeated, "no kill came into a step"
