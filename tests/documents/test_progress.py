"""How true the progress of each job is: its fraction against the share of time at each quarter, on the demo's documents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from milepost.documents.jobs import HANDLERS
from tests.documents.corpora import debian_history
from tests.documents.watched_run import WatchedRun

POINTS = 0.10


def measure(job_type: str, **parameters: Any) -> dict[float, float]:
    """The fraction that a job said when a quarter, a half and three quarters of its time were over.

    Time is that of this process, so that others on the machine do not count.
    """
    seen: list[tuple[float, float]] = []
    run = WatchedRun(lambda run: seen.append((time.process_time(), run.fraction)))
    begin = time.process_time()
    HANDLERS[job_type](run, **parameters)
    took = time.process_time() - begin
    assert [fraction for _, fraction in seen] == sorted(fraction for _, fraction in seen)
    return {
        quarter: max((fraction for at, fraction in seen if at - begin <= quarter * took), default=0.0)
        for quarter in (0.25, 0.5, 0.75)
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_fraction_is_near_the_share_of_time_at_each_quarter(tmp_path: Path) -> None:
    database = str(tmp_path / "documents.db")
    HANDLERS["ingestion"](WatchedRun(), [__file__], database=str(tmp_path / "warm.db"))  # libraries are loaded once
    told = {
        "ingestion": measure("ingestion", paths=[str(debian_history(tmp_path))], database=database),
        "extraction": measure("extraction", database=database),
        "reindex": measure("reindex", database=database, chunk_tokens=160),
    }
    wrong = {
        (job_type, quarter): round(fraction, 3)
        for job_type, quarters in told.items()
        for quarter, fraction in quarters.items()
        if abs(fraction - quarter) > POINTS
    }
    assert not wrong, told
