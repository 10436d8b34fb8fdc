"""What the next attempt repeats, what it skips, and what it logs about that."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from milepost import InvalidInputError, JobManager, Run
from milepost.core.serialization import from_json
from milepost.testing import FakeRun, fake_run
from tests.run.conftest import log_lines
from tests.run.resumed_run import resumed

PAGES = ["a.pdf", "b.pdf", "c.pdf", "d.pdf"]


class Away(Exception):
    """Interrupts the first attempt."""


def result_after_an_error(manager: JobManager, work: Callable[[Run, bool], Any]) -> tuple[Any, list[str]]:
    """Return the result of a job whose first attempt failed, and its log lines."""
    for fails in (True, False):
        with contextlib.suppress(Away), manager.track("ingestion", unique_key="papers") as run:
            run.result = work(run, fails)
    job = manager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.attempt, job.progress) == ("completed", 2, 1.0)
    logs = [event.data or {} for event in manager.events(run.job_id) if event.kind == "log"]
    return job.result, [line["text"] for log in logs for line in log["lines"]]


def counts(run: Run, fails: bool) -> int:
    pages = 0
    for page in run.each(PAGES):
        if fails and page == "c.pdf":
            raise Away
        pages += 1
    return pages


def collects(run: Run, fails: bool) -> list[str]:
    found = [page.upper() for page in run.each(PAGES, key=str)]
    if fails:
        raise Away
    return found


def batches(run: Run, fails: bool) -> list[int]:
    sizes = []
    for batch in run.each(PAGES, batch=3):
        if fails and sizes:
            raise Away
        sizes.append(len(batch))
    return sizes


def nested(run: Run, fails: bool) -> dict[str, int]:
    letters = dict.fromkeys(PAGES, 0)
    for page in run.each(PAGES):
        for letter in run.each(page):
            if fails and (page, letter) == ("c.pdf", "d"):
                raise Away
            letters[page] += 1
    return letters


def maps(run: Run, fails: bool) -> list[str]:
    found = run.map(str.upper, PAGES, concurrency=2, resume=False)
    if fails:
        raise Away
    return list(found)


@pytest.mark.timing
@pytest.mark.parametrize(
    ("work", "result"),
    [
        (counts, 4),
        (collects, ["A.PDF", "B.PDF", "C.PDF", "D.PDF"]),
        (batches, [3, 1]),
        (nested, dict.fromkeys(PAGES, 5)),
        (maps, ["A.PDF", "B.PDF", "C.PDF", "D.PDF"]),
    ],
)
def test_next_attempt_gives_result_of_undisturbed_run(
    manager: JobManager, work: Callable[[Run, bool], Any], result: Any
) -> None:
    """Regression: a job that counted in a variable completed with the count of its last attempt only."""
    found, log = result_after_an_error(manager, work)
    assert found == result
    [line] = log
    assert line.startswith("starting again at item 1; the last run had ")
    assert line.endswith(("would keep that)", "would be kept)"))


@pytest.mark.timing
def test_loop_from_checkpoint_loses_no_item(manager: JobManager) -> None:
    """Regression: a loop over the items after a checkpoint skipped as many items again."""
    seen: list[int] = []

    def work(run: Run, fails: bool) -> int:
        for item in run.each(range(run.last_checkpoint or 0, 20)):
            if fails and item == 8:
                raise Away
            seen.append(item)
            run.checkpoint(item + 1)
        return len(seen)

    assert result_after_an_error(manager, work) == (20, [])
    assert seen == list(range(20))


@pytest.mark.timing
def test_resume_logs_what_was_passed_over(manager: JobManager) -> None:
    seen: list[str] = []

    def work(run: Run, fails: bool) -> None:
        for page in run.each(PAGES, resume=True):
            if fails and page == "c.pdf":
                raise Away
            seen.append(page)

    assert result_after_an_error(manager, work) == (None, ["resumed at item 3 of 4, 2 passed over"])
    assert seen == PAGES


# --- what the log says ------------------------------------------------------------------------------------------------


def until_item(run: FakeRun, items: Any, last: int, **how: Any) -> FakeRun:
    """Return the run of the next attempt, after one that was interrupted at item `last`."""
    for _ in itertools.islice(run.each(items, **how), last):
        pass
    return resumed(run)


def test_restart_logs_lost_progress() -> None:
    again = until_item(fake_run(), range(490), 271)
    assert again.resumed is False
    assert list(again.each(range(490))) == list(range(490))
    assert log_lines(again) == [
        "starting again at item 1; the last run had reached item 271 of 490 (resume=True or state= would keep that)"
    ]


def test_restart_of_finished_loop_is_logged() -> None:
    run = fake_run()
    list(run.each(PAGES, stage="Load"))
    again = resumed(run)
    list(again.each(PAGES, stage="Load"))
    assert log_lines(again) == [
        "Load: starting again at item 1; the last run had finished all 4 items (resume=True or state= would keep that)"
    ]


def test_first_attempt_and_nested_restarts_log_nothing() -> None:
    def work(run: FakeRun) -> None:
        for _ in run.each(range(3), key=str):
            list(run.each(range(2)))

    run = fake_run()
    work(run)
    assert log_lines(run) == []
    assert list(from_json(run._report()["cursors"])) == ["items"]
    again = resumed(run)
    work(again)
    assert len(log_lines(again)) == 1


@pytest.mark.parametrize("key", [None, lambda number: number])
def test_resume_logs_where_it_continues(key: Any) -> None:
    again = until_item(fake_run(), range(490), 271, key=key, resume=True)
    assert again.resumed is True
    assert list(again.each(range(490), key=key, resume=True)) == list(range(270, 490))
    assert log_lines(again) == ["resumed at item 271 of 490, 270 passed over"]
    after = resumed(again)
    assert list(after.each(range(490), key=key, resume=True)) == []
    assert log_lines(after) == ["resumed after item 490 of 490, 490 passed over"]


@pytest.mark.parametrize("key", [None, lambda number: number])
async def test_async_loop_restart_and_resume_are_logged(key: Any) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async def begin(run: FakeRun, resume: bool) -> FakeRun:
        async for number in run.each(items(), key=key, resume=resume):
            if number == 3:
                break
        return resumed(run)

    plain = await begin(fake_run(), False)
    assert [number async for number in plain.each(items(), key=key)] == [0, 1, 2, 3, 4]
    assert log_lines(plain) == [
        "starting again at item 1; the last run had reached item 4 (resume=True or state= would keep that)"
    ]
    again = await begin(fake_run(), True)
    assert [number async for number in again.each(items(), key=key, resume=True)] == [3, 4]
    assert log_lines(again) == ["resumed at item 4, 3 passed over"]


def test_resume_restarts_after_loop_without_resume() -> None:
    """What an attempt without resume=True had finished may be gone, so a later attempt must not skip it."""
    again = until_item(fake_run(), PAGES, 3)
    assert list(again.each(PAGES, resume=True)) == PAGES
    assert log_lines(again) == [
        "starting again at item 1; the last run had reached item 3 of 4 (resume=True was not given then)"
    ]


def test_plain_loop_in_resumed_loop_starts_at_first_item() -> None:
    def work(run: FakeRun, until: tuple[int, int] | None = None) -> dict[int, int]:
        """Write each item as a whole, as into a database."""
        written = {}
        for outer in run.each(range(3), resume=True):
            total = 0
            for inner in run.each(range(4)):
                if (outer, inner) == until:
                    return written
                total += inner
            written[outer] = total
        return written

    run = fake_run()
    first = work(run, (1, 2))
    again = resumed(run)
    assert {**first, **work(again)} == {0: 6, 1: 6, 2: 6}
    assert log_lines(again) == [
        "resumed at item 2 of 3, 1 passed over",
        "items[1]/items: starting again at item 1; the last run had reached item 3 of 4 (resume=True or state= would keep that)",
    ]


def test_resumed_loop_in_plain_loop_continues_in_its_item() -> None:
    def work(run: FakeRun, until: tuple[int, int] | None = None) -> list[tuple[int, int]]:
        done = []
        for outer in run.each(range(3)):
            for inner in run.each(range(3), resume=True):
                if (outer, inner) == until:
                    return done
                done.append((outer, inner))
        return done

    run = fake_run()
    work(run, (1, 2))
    assert work(resumed(run)) == [(0, 0), (0, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2)]


def test_map_resumes_with_gaps_in_results_and_logs_it() -> None:
    run = fake_run()
    run.map(str.upper, PAGES[:3], key=str, resume=True)
    again = resumed(run)
    assert again.map(str.upper, PAGES, key=str, resume=True) == [None, None, None, "D.PDF"]
    assert log_lines(again) == ["resumed: 3 of 4 items passed over, their results are None"]


async def test_async_map_gives_all_results_in_each_attempt() -> None:
    async def upper(page: str) -> str:
        return page.upper()

    run = fake_run()
    await run.map(upper, PAGES, concurrency=2)
    assert await resumed(run).map(upper, PAGES, concurrency=2) == [page.upper() for page in PAGES]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_resume_with_checkpoint_is_rejected() -> None:
    """A position that is kept twice is applied twice, so items are lost."""
    run = fake_run()
    with pytest.raises(InvalidInputError, match=r"resume: this run has a checkpoint of its own.* use either"):
        fake_run(last_checkpoint=3).each(range(9), resume=True)
    with pytest.raises(InvalidInputError, match=r"checkpoint: a loop of this run has resume=True"):  # noqa: PT012
        for number in run.each(range(9), resume=True):
            run.checkpoint(number)
    assert run.checkpoints == []
    other = fake_run()
    other.checkpoint(1)
    with pytest.raises(InvalidInputError, match="use either"):
        other.map(str, [1], resume=True)


async def test_resume_with_awaited_checkpoint_is_rejected() -> None:
    run = fake_run()
    run.each([1], resume=True)
    with pytest.raises(InvalidInputError, match="resume=True"):
        await run.acheckpoint(1)


def test_resume_rejects_unordered_items() -> None:
    run = fake_run()
    for name, items in (("set", {"b", "a"}), ("frozenset", frozenset({"b", "a"}))):
        with pytest.raises(InvalidInputError, match=r"sorted\(items\)"):
            run.each(items, resume=True)
        with pytest.raises(InvalidInputError, match=r"sorted\(items\)"):
            run.map(str, items, resume=True)
        assert len(run.map(str, items, key=str, resume=True, stage=name)) == 2
        assert len(list(run.each(items))) == 2


def test_map_resume_rejects_duplicate_keys() -> None:
    """Regression: both items counted as done when one of them was."""
    with pytest.raises(InvalidInputError, match="two items have the key 'a'"):
        fake_run().map(str, ["a", "a"], key=str, resume=True)
    with pytest.raises(InvalidInputError, match="two items have the key 'a'"):
        fake_run().map(str, ["a", "a"], key=str)
    assert fake_run().map(str, ["a", "a"], key=str, resume=False) == ["a", "a"]


def test_resume_with_fewer_items_is_rejected() -> None:
    """Regression: a shorter list was taken for a finished one, and the job completed."""
    again = until_item(fake_run(), range(9), 8, resume=True)
    with pytest.raises(InvalidInputError, match="the last attempt came to item 7, which is no longer among the items"):
        list(again.each(iter(range(5)), resume=True))


def test_retry_of_failed_items_yields_only_those() -> None:
    for resume in (False, True):
        run = fake_run(only=["b.pdf", "d.pdf"])
        assert list(run.each(PAGES, key=str, resume=resume)) == ["b.pdf", "d.pdf"]
        assert run.map(str.upper, PAGES, stage="Map", key=str, resume=resume) == [None, "B.PDF", None, "D.PDF"]
