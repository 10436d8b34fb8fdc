"""What `run.map` keeps for the next attempt, and what it refuses to keep."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import Any

import pytest

from milepost import InvalidInputError, JobManager, Run
from milepost.core.errors import JobReleased
from milepost.run import checkpoints, results
from milepost.run.results import JOB_BYTES, PART_BYTES, RESULT_BYTES, Budget
from milepost.stores.sync_bridge import run_sync
from milepost.testing import fake_run
from tests.run.conftest import log_lines
from tests.run.resumed_run import resumed
from tests.waiting import current, until


class Away(Exception):
    """What interrupts an attempt."""


def pairs(number: int) -> list[tuple[str, int]]:
    """Return what is no plain JSON, by its declared type."""
    return [(str(number), number)]


@pytest.mark.timing
@pytest.mark.parametrize("size", [1, 20_000], ids=["small", "large"])
@pytest.mark.parametrize("is_async", [False, True])
def test_next_attempt_returns_all_results_and_processes_the_others(
    manager: JobManager, size: int, is_async: bool
) -> None:
    calls: list[int] = []

    def work(number: int) -> str:
        calls.append(number)
        if number == 9 and calls.count(9) == 1:
            raise Away
        return str(number) * size

    async def awork(number: int) -> str:
        return work(number)

    for _ in range(2):
        with contextlib.suppress(Away), manager.track("map", unique_key="k") as run:
            if size > 1 and not calls:  # the heartbeat moves large results into parts beside the record
                run.map(work, range(8), stage="First")
                until(lambda run=run: '"parts"' in (current(manager, run).record.get("cursors") or ""))
            if size > 1:
                assert run.map(work, range(8), stage="First") if calls.count(9) else True
            found = asyncio.run(run.map(awork, range(12))) if is_async else run.map(work, range(12))
            run.result = [text[-1] for text in found]
    job = current(manager, run)
    assert (job.status, job.result) == ("completed", [str(number)[-1] for number in range(12)])
    assert calls.count(11) == 1
    assert calls.count(8) == 1
    store = manager.store.with_blocking(blocking=True)
    until(lambda: run_sync(store.kv_scan(f"results/{run.job_id}/")) == [])


@pytest.mark.timing
def test_deleted_job_leaves_no_kept_results(manager: JobManager) -> None:
    """The kept results of a failed job stayed in the store for a month after its deletion."""
    with contextlib.suppress(Away), manager.track("map", unique_key="k") as run:
        run.map(lambda number: str(number) * 20_000, range(8))
        until(lambda: '"parts"' in (current(manager, run).record.get("cursors") or ""))
        raise Away
    store = manager.store.with_blocking(blocking=True)
    assert run_sync(store.kv_scan(f"results/{run.job_id}/")), "its retry uses them"
    manager.delete_job(run.job_id)
    until(lambda: not run_sync(store.kv_scan(f"results/{run.job_id}/")))  # the heartbeat may have been at writing more


def test_results_of_a_part_that_is_gone_are_made_again() -> None:
    calls: list[int] = []

    def work(number: int) -> str:
        calls.append(number)
        return "x" * 10_000

    run = fake_run()
    run.map(work, range(8))
    assert len(run._take_parts()) == 1
    again = resumed(run)
    assert len(again.map(work, range(8))) == 8
    assert calls == [*range(8), *range(8)]
    assert again.ledger.done == 8


def test_declared_type_of_results_comes_back() -> None:
    run = fake_run()
    run.map(pairs, range(3))
    again = resumed(run)
    assert again.map(pairs, range(3)) == [[("0", 0)], [("1", 1)], [("2", 2)]]
    assert log_lines(again) == ["resumed: 3 of 3 items were finished, their results are kept"]


def test_result_that_would_not_come_back_equal_is_refused_at_its_item() -> None:
    for result in ({1, 2}, (1,), {1: 2}, object()):
        with pytest.raises(InvalidInputError, match=r"result of item 0.*keep=False.*resume=False"):
            fake_run().map(lambda _, result=result: result, [1])
        assert fake_run().map(lambda _, result=result: result, [1], resume=False) == [result]
        assert fake_run().map(lambda _, result=result: result, [1], keep=False) == [result]


def test_results_over_their_bounds_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=rf"result of item 1: .*limit is {RESULT_BYTES}.*keep=False"):
        fake_run().map(lambda number: "x" * number * RESULT_BYTES, range(2))
    monkeypatch.setattr(results, "JOB_BYTES", 100)
    with pytest.raises(InvalidInputError, match=r"result of item 2: .*together.*keep=False"):
        fake_run().map(lambda _: "x" * 40, range(3))
    assert Budget()._left == 100
    assert PART_BYTES < RESULT_BYTES < JOB_BYTES


def test_results_of_earlier_attempts_count_towards_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "JOB_BYTES", 100)

    def work(number: int) -> str:
        if number == 2 and run.attempt == 1:
            raise Away
        return "x" * 40

    run = fake_run()
    with pytest.raises(Away):
        run.map(work, range(3))
    run = resumed(run)
    with pytest.raises(InvalidInputError, match=r"result of item 2: .*together.*keep=False"):
        run.map(work, range(3))


def test_failed_items_are_tried_again() -> None:
    def work(number: int) -> int:
        if number == run.attempt:
            raise ValueError(number)
        return number

    run = fake_run()
    assert run.map(work, range(4), errors="collect") == [0, None, 2, 3]
    run = resumed(run)
    assert run.map(work, range(4), errors="collect") == [0, 1, 2, 3]
    assert (run.ledger.done, run.ledger.failed) == (4, 0)


def test_items_in_threads_are_kept_at_a_deploy() -> None:
    """Regression: the items that were under way at SIGTERM were finished, but called again in the next attempt."""
    run, under_way, calls = fake_run(), threading.Barrier(3), []

    def work(number: int) -> int:
        calls.append(number)
        if number < 3:
            under_way.wait(30)
            run.stop(JobReleased("shutting down"))
        return number

    with pytest.raises(JobReleased):
        run.map(work, range(5), concurrency=3)
    assert run.ledger.done == 3
    assert resumed(run).map(work, range(5), concurrency=3) == [0, 1, 2, 3, 4]
    assert sorted(calls) == [0, 1, 2, 3, 4]


def test_items_in_threads_are_kept_when_another_fails(manager: JobManager) -> None:
    under_way, calls = threading.Barrier(2), []

    def work(number: int) -> int:
        calls.append(number)
        if len(calls) <= 2:
            under_way.wait(30)
            if number == 0:
                raise Away
            time.sleep(0.2)  # the loop has seen the error
        return number

    for _ in range(2):
        with contextlib.suppress(Away), manager.track("map", unique_key="k") as run:
            run.result = run.map(work, range(3), concurrency=2)
    assert current(manager, run).result == [0, 1, 2]
    assert sorted(calls) == [0, 0, 1, 2]


def test_results_are_those_of_one_function() -> None:
    run = fake_run()
    assert run.map(lambda number: number + 1, range(3)) == [1, 2, 3]
    again = resumed(run)
    assert again.map(lambda number: number * 10, range(3)) == [0, 10, 20]
    assert log_lines(again) == [
        "starting again at item 1; the last run had finished all 3 items (the results are those of this function)"
    ]


def test_kept_map_refuses_sets_and_a_checkpoint_outside_of_a_loop() -> None:
    with pytest.raises(InvalidInputError, match=r"sorted\(items\)"):
        fake_run().map(str, {1, 2})
    run = fake_run()
    run.checkpoint(1)
    with pytest.raises(InvalidInputError, match="a checkpoint of its own"):
        run.map(str, [1])
    run = fake_run()
    for _ in run.each([1]):
        run.checkpoint(1)
    assert run.map(str, [1]) == ["1"]
    with pytest.raises(InvalidInputError, match="a map of this run keeps its results"):
        run.checkpoint(2)


def in_loop(run: Run) -> None:
    for page in run.each([1]):
        run.checkpoint(page)


def outside(run: Run) -> None:
    run.checkpoint(2)


def only_loop(run: Run) -> None:
    for _ in run.each([1]):
        pass


@pytest.mark.timing
@pytest.mark.parametrize("attempts", [[[outside], [only_loop]], [[in_loop], [outside]], [[in_loop, outside]]])
def test_checkpoint_outside_of_a_loop_counts_in_later_attempts(manager: JobManager, attempts: Any) -> None:
    """Regression: after an attempt with a loop, or with a checkpoint in one before, it was taken for one in a loop."""
    for parts in attempts:
        with contextlib.suppress(Away), manager.track("walk", unique_key="k") as run:
            for part in parts:
                part(run)
            raise Away
    with (
        pytest.raises(InvalidInputError, match="a checkpoint of its own"),
        manager.track("walk", unique_key="k") as run,
    ):
        run.map(str, [1])
    assert (run.attempt, run.last_checkpoint) == (len(attempts) + 1, 2)


def test_checkpoint_of_another_type_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    checkpoints._warned.clear()
    run = fake_run()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            run.checkpoint({"seen": {1, 2}, "pair": (1, 2), 3: "x"})
    assert run.checkpoints[-1] == {"seen": [1, 2], "pair": [1, 2], "3": "x"}
    assert [record.message.partition(" which")[0] for record in caplog.records] == [
        "checkpoint contains a set,", "checkpoint contains a tuple,", "checkpoint contains a int (as a key),",
    ]  # fmt: skip
