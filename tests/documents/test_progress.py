"""How true the progress of each job is: its fraction against the share of time at each quarter, on the demo's documents."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milepost.documents.jobs import HANDLERS
from tests.documents.corpora import debian_history, debian_policy
from tests.documents.watched_run import WatchedRun

POINTS = 0.10
QUARTERS = (0.25, 0.5, 0.75)


def measure(job_type: str, clock: Callable[[], float] = time.process_time, **parameters: Any) -> dict[float, float]:
    """The fraction that a job said when a quarter, a half and three quarters of its time were over.

    Time is that of this process, so that others on the machine do not count.
    """
    seen: list[tuple[float, float]] = []
    run = WatchedRun(lambda run: seen.append((clock(), run.fraction)))
    begin = clock()
    HANDLERS[job_type](run, **parameters)
    took = clock() - begin
    assert [fraction for _, fraction in seen] == sorted(fraction for _, fraction in seen)
    return {
        quarter: max((fraction for at, fraction in seen if at - begin <= quarter * took), default=0.0)
        for quarter in QUARTERS
    }


def wrong(told: dict[str, dict[float, float]]) -> dict[tuple[str, float], float]:
    """The fractions that are too far from the share of time."""
    return {
        (job_type, quarter): round(fraction, 3)
        for job_type, quarters in told.items()
        for quarter, fraction in quarters.items()
        if abs(fraction - quarter) > POINTS
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
    assert not wrong(told), told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_fraction_of_a_clustering(tmp_path: Path) -> None:
    """On the policy manual: the demo's documents take 20 ms, in which nobody sees a bar. The threads of the linear
    algebra spin while they wait, so that only this thread's time says something; the median of five measurements."""
    database = str(tmp_path / "documents.db")
    HANDLERS["ingestion"](WatchedRun(), [str(debian_policy(tmp_path))], database=database, model="hashing")
    HANDLERS["clustering"](WatchedRun(), database=database, of="chunks")
    measured = [measure("clustering", time.thread_time, database=database, of="chunks") for _ in range(5)]
    told = {"clustering": {quarter: statistics.median(one[quarter] for one in measured) for quarter in QUARTERS}}
    assert not wrong(told), measured
