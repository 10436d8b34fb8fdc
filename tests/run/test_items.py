"""The item counts of a job whose loops resume in the next attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from milepost import InMemoryJobManager, ItemCounts, JobManager, Run, Settings
from milepost.testing import FakeRun, fake_run
from tests.run.resumed_run import resumed
from tests.run.test_resume import Away

NAMES = ["a", "b", "c", "d", "e"]


def card(text: str) -> str:
    """Redact a text, as a redaction hook."""
    return text.replace("4111-1111", "[card]")


def load(run: Run, name: str, fails: bool) -> None:
    with run.item(name):
        if name == "b":
            raise ValueError("no text in it")
    if fails and name == "d":
        raise Away


def each(run: Run, fails: bool, resume: bool) -> None:
    for name in run.each(NAMES, resume=resume):
        load(run, name, fails)


def batches(run: Run, fails: bool, resume: bool) -> None:
    for batch in run.each(NAMES, batch=2, resume=resume):
        for name in batch:
            load(run, name, fails)


def aeach(run: Run, fails: bool, resume: bool) -> None:
    async def names() -> AsyncIterator[str]:
        for name in NAMES:
            yield name

    async def go() -> None:
        async for name in run.each(names(), key=str, resume=resume):
            load(run, name, fails)

    asyncio.run(go())


def inner(run: Run, fails: bool, resume: bool) -> None:
    for names in run.each([NAMES[:2], NAMES[2:]], resume=resume):
        for name in run.each(names, resume=resume):
            load(run, name, fails)


def maps(run: Run, fails: bool, resume: bool) -> None:
    def work(name: str) -> None:
        if name == "b":
            raise ValueError("no text in it")
        if fails and name == "d":
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run.map(work, NAMES, key=str, errors="collect", resume=resume)
        return
    raise Away


def amaps(run: Run, fails: bool, resume: bool) -> None:
    async def work(name: str) -> None:
        load(run, name, fails)

    asyncio.run(run.map(work, NAMES, key=str, resume=resume))


@pytest.mark.timing
@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("work", [each, batches, aeach, inner, maps])
def test_failed_items_stay_recorded_when_loop_resumes(
    manager: JobManager, work: Callable[[Run, bool, bool], None], resume: bool
) -> None:
    """Regression: failed items before the resume position were forgotten, and the job completed with no failed items."""
    for fails in (True, True, False):
        with contextlib.suppress(Away), manager.track("load", unique_key="names") as run:
            work(run, fails, resume)
    job = manager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.attempt) == ("completed", 3)
    assert job.item_counts == ItemCounts(
        done=4, failed=1, skipped=0, failed_keys=("b",), first_errors=("b: ValueError: no text in it",)
    )


def counted(run: FakeRun) -> tuple[int, int, list[str]]:
    return run.ledger.done, run.ledger.failed, run.ledger.failed_keys


def test_skipped_loop_keeps_its_items_recorded() -> None:
    run = fake_run()
    for name in run.each(NAMES, stage="Done already", resume=True):
        load(run, name, fails=False)
    again = resumed(run)
    for name in again.each(["f", "g"], stage="Next", resume=True):
        load(again, name, fails=False)
    assert counted(again) == (6, 1, ["b"])
    assert counted(resumed(again)) == (6, 1, ["b"])


def test_restarted_loop_counts_its_items_again() -> None:
    run = fake_run()
    with contextlib.suppress(Away):
        each(run, True, True)
    for how in ({"key": str, "resume": True}, {"resume": False}):
        again = resumed(run)
        assert counted(again) == (2, 1, ["b"])
        for name in again.each(NAMES, **how):
            load(again, name, fails=False)
        assert counted(again) == (4, 1, ["b"])


def test_map_keeps_items_of_passed_over_keys() -> None:
    run = fake_run()
    with contextlib.suppress(Away):
        amaps(run, True, True)
    again = resumed(run)
    before = counted(again)
    amaps(again, False, True)
    assert (before[1:], counted(again)) == ((1, ["b"]), (9, 1, ["b"]))


def test_item_errors_are_redacted() -> None:
    """Regression: errors of items were recorded without the redaction hook."""
    manager = InMemoryJobManager(options=Settings(redact="tests.run.test_items:card"))

    def pay(order: str) -> None:
        raise ValueError(f"card 4111-1111 refused for {order}")

    with manager.track("payment") as run:
        for order in run.each(["order-1"]):
            with run.item(order):
                pay(order)
        run.map(pay, ["order-2"], key=str, errors="collect")
    job = manager.get_job(run.job_id)
    assert job is not None
    assert job.item_counts is not None
    assert job.item_counts.first_errors == (
        "order-1: ValueError: card [card] refused for order-1",
        "order-2: ValueError: card [card] refused for order-2",
    )
