"""The progress of each job increases from start to end in each of its stages.

`make bench ARGS="documents"` measures how close it is to the share of time.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from milepost.documents.jobs import HANDLERS
from tests.documents.corpora import debian_history
from tests.documents.watched_run import WatchedRun


def fractions(job_type: str, **parameters: Any) -> list[float]:
    """Return what the job reported at each cancellation point, and at its end."""
    run = WatchedRun()
    HANDLERS[job_type](run, **parameters)
    return [*run.progress_seen, run.fraction]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fraction_increases_from_zero_to_one(tmp_path: Path) -> None:
    database = str(tmp_path / "documents.db")
    reported = {
        "ingestion": fractions("ingestion", paths=[str(debian_history(tmp_path))], database=database),
        "extraction": fractions("extraction", database=database),
        "reindex": fractions("reindex", database=database, chunk_tokens=160),
        "clustering": fractions("clustering", database=database, of="chunks"),
    }
    for job_type, seen in reported.items():
        assert seen == sorted(seen), job_type
        assert seen[0] < 0.1, job_type
        assert seen[-1] == pytest.approx(1.0), job_type
        assert max(after - before for before, after in pairwise(seen)) < 0.35, job_type
