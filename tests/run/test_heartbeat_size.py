"""The size of a heartbeat request: large reports are sent in several requests, and none is left out."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier

import pytest

from milepost import Jobs, Run, Settings
from milepost.run.report import MAX_BUFFERED_CHARACTERS, LogBuffer
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import MAX_CHARACTERS, Write, WriteResult
from tests.waiting import PATIENCE, until

RUNS = 6
LINES, LINE = 240, "x" * 4000


def test_heartbeat_request_is_bounded_and_covers_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the logs and cursors of all runs went into one request, which timed out on a slow connection."""
    heartbeat, sizes = MemoryStore.heartbeat, []

    async def measured(
        store: MemoryStore, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[WriteResult], list[str]]:
        sizes.append(sum(write.size for write in writes))
        return await heartbeat(store, writes, leases, micros)

    monkeypatch.setattr(MemoryStore, "heartbeat", measured)
    jobs, all_spoke, stopped = Jobs("memory://", options=Settings(heartbeat=0.5)), Barrier(RUNS), Barrier(RUNS + 1)

    @jobs.job("talks")
    def talks(run: Run) -> None:
        all_spoke.wait(PATIENCE)
        for _ in range(LINES):
            run.log(LINE)
        stopped.wait(PATIENCE)

    def lines(job_id: str) -> int:
        return sum(len(event.data["lines"]) for event in jobs.events(job_id) if event.kind == "log")

    ids = [jobs.enqueue("talks").job_id for _ in range(RUNS)]
    with jobs.run_workers(concurrency=RUNS):
        until(lambda: all(lines(job_id) == LINES for job_id in ids))
        stopped.wait(PATIENCE)
    jobs.close()
    assert max(sizes) < MAX_CHARACTERS + 1.2 * LINES * len(LINE)
    assert sum(sizes) > MAX_CHARACTERS * 2


def test_log_buffer_is_bounded_and_counts_dropped_lines() -> None:
    """Regression: the log lines of a run grew to 64 MB during an outage and were then sent at once."""
    waiting = LogBuffer()
    count = MAX_BUFFERED_CHARACTERS // len(LINE) + 10
    waiting.add([{"at": "", "level": "info", "text": LINE}] * count)
    text = waiting.take() or ""
    assert len(text) < MAX_BUFFERED_CHARACTERS * 1.1
    assert f"{count - text.count(LINE)} log lines dropped" in text
    waiting.add([{"at": "", "level": "info", "text": "fresh"}])
    assert "fresh" in (waiting.take() or "")
