"""Which loop of the next attempt continues which loop of the last one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from milepost import InvalidInputError, JobManager, Run
from milepost.testing import fake_run
from tests.run.conftest import log_lines
from tests.run.resumed_run import resumed
from tests.run.test_resume import Away, until_item

FILES = {"a.csv": 4, "b.csv": 4, "c.csv": 4}


def rows(name: str) -> list[str]:
    return [f"{name}:{number}" for number in range(FILES[name])]


async def arows(name: str) -> AsyncIterator[str]:
    for row in rows(name):
        yield row


class Load:
    """Load files row by row. A complete file has a durable mark and is skipped."""

    def __init__(self, loop: Callable[[Run, str, Callable[[str], None]], None]) -> None:
        self.loop = loop
        self.written: list[str] = []
        self.complete: set[str] = set()

    def __call__(self, run: Run, fails_at: str | None) -> None:
        def write(row: str) -> None:
            if row == fails_at:
                raise Away
            self.written.append(row)

        for name in FILES:
            if name not in self.complete:
                self.loop(run, name, write)
                self.complete.add(name)


def each(run: Run, name: str, write: Callable[[str], None], **how: Any) -> None:
    for row in run.each(rows(name), resume=True, **how):
        write(row)


def aeach(run: Run, name: str, write: Callable[[str], None], **how: Any) -> None:
    async def go() -> None:
        async for row in run.each(arows(name), resume=True, **how):
            write(row)

    asyncio.run(go())


def maps(run: Run, name: str, write: Callable[[str], None], **how: Any) -> None:
    run.map(write, rows(name), resume=True, **how)


def amaps(run: Run, name: str, write: Callable[[str], None], **how: Any) -> None:
    async def awrite(row: str) -> None:
        write(row)

    asyncio.run(run.map(awrite, rows(name), resume=True, **how))


@pytest.mark.timing
@pytest.mark.parametrize("how", [{}, {"key": str}, {"stage": "Rows"}], ids=["unnamed", "keyed", "same-name"])
@pytest.mark.parametrize("loop", [each, aeach, maps, amaps])
def test_second_loop_of_same_name_is_rejected(
    manager: JobManager, loop: Callable[..., None], how: dict[str, Any]
) -> None:
    """Regression: an attempt that skipped a finished file passed its position on to the next file, whose rows were
    lost.
    """
    load = Load(lambda run, name, write: loop(run, name, write, **how))
    for _ in range(3):  # a further attempt skips what is complete, and must not take that position either
        with (
            pytest.raises(InvalidInputError, match=r"stage: two loops with resume=True .*stage=f'Rows \{name\}'"),
            manager.track("load", unique_key="files") as run,
        ):
            load(run, "b.csv:2")
    job = manager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.attempt, load.written) == ("failed", 3, rows("a.csv"))

    load.loop = lambda run, name, write: loop(run, name, write, **{**how, "stage": f"Rows {name}"})
    with manager.track("load", unique_key="files") as run:
        load(run, None)
    assert sorted(load.written) == [row for name in FILES for row in rows(name)]


@pytest.mark.timing
@pytest.mark.parametrize("loop", [each, aeach, maps, amaps])
def test_loop_named_after_file_loses_nothing(manager: JobManager, loop: Callable[..., None]) -> None:
    load = Load(lambda run, name, write: loop(run, name, write, stage=f"Rows {name}"))
    for fails_at in ("b.csv:2", None):
        with contextlib.suppress(Away), manager.track("load", unique_key="files") as run:
            load(run, fails_at)
    job = manager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.attempt) == ("completed", 2)
    assert sorted(load.written) == [row for name in FILES for row in rows(name)]


def test_nested_loops_need_no_name() -> None:
    run = fake_run()
    for name in run.each(FILES):
        assert list(run.each(rows(name), resume=True)) == rows(name)
        with pytest.raises(InvalidInputError, match="have no name of their own"):
            run.each(rows(name), resume=True)


async def test_two_unnamed_concurrent_loops_are_rejected() -> None:
    run = fake_run()

    async def one() -> None:
        async for _ in run.each(arows("a.csv"), resume=True):
            await asyncio.sleep(0)

    assert sorted(type(end).__name__ for end in await asyncio.gather(one(), one(), return_exceptions=True)) == [
        "InvalidInputError",
        "NoneType",
    ]


def test_unnamed_plain_loops_are_numbered_in_log() -> None:
    """Regression: the second loop was called `items'` in the log."""
    run = fake_run()
    for _ in range(2):
        list(run.each(range(3)))
    again = resumed(run)
    for _ in range(2):
        list(again.each(range(3)))
    assert [line.partition(" (")[0] for line in log_lines(again)] == [
        "starting again at item 1; the last run had finished all 3 items",
        "loop 2: starting again at item 1; the last run had finished all 3 items",
    ]


@pytest.mark.timing
@pytest.mark.parametrize("loop", ["each", "map"])
@pytest.mark.parametrize("now", [6, 14])
def test_position_in_changed_number_of_items_is_rejected(manager: JobManager, loop: str, now: int) -> None:
    """Regression: six new items took over the position among ten old ones, so the first of them were never processed."""
    done: list[int] = []

    def go(count: int, **how: Any) -> None:
        def write(number: int) -> None:
            if number == 5:
                raise Away
            done.append(number)

        with manager.track("load", unique_key="items") as run:
            if loop == "map":
                run.map(write, range(count), resume=True, **how)
            else:
                for number in run.each(range(count), resume=True, **how):
                    write(number)

    with contextlib.suppress(Away):
        go(10)
    with pytest.raises(InvalidInputError, match=f"items: the last attempt had 10 items.*, this one has {now}; .* key="):
        go(now)
    assert done == [0, 1, 2, 3, 4]
    with contextlib.suppress(Away):
        go(now, key=str)  # starts again, since the positions of then say nothing of keys
    assert done == 2 * [0, 1, 2, 3, 4]
    with contextlib.suppress(Away):
        go(now + 1, key=str)
    assert done == 2 * [0, 1, 2, 3, 4]


def test_new_key_restarts_loop_and_logs_it() -> None:
    again = until_item(fake_run(), range(9), 4, resume=True)
    assert list(again.each(range(5), key=str, resume=True)) == list(range(5))
    assert log_lines(again) == [
        "starting again at item 1; the last run had reached item 4 of 9 (key was given in one of the two runs only)"
    ]
    assert again.fraction == 1.0
