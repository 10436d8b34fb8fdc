"""`replay` of the test kit: code that is safe to interrupt passes, and other code fails with what differs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from milepost import AsyncJobs, AsyncRun, Fail, InputChangedError, InvalidInputError, Jobs, QuestionExpiredError, Run
from milepost.core.errors import ChildFailedError
from milepost.testing import JobsUnderTest, async_jobs_under_test, jobs_under_test

jobs = Jobs("memory://")
numbers = itertools.count()
segments: list[str] = []


@jobs.job("square")
def square(run: Run, n: int) -> int:
    return run.step("square", lambda: n * n)


@jobs.job("safe")
def safe(run: Run, children: int) -> Any:
    segments.append("safe")
    drawn = run.step("draw", lambda: next(numbers))
    for n in range(children):
        run.submit_child(str(n), square, n=n)
    squares = run.join()
    run.sleep("night", "12h")
    again = run.step("draw again", lambda: next(numbers))
    return [again - drawn, sum(squares.result(str(n)) for n in range(children)), run.ask("go", "Go?", bool)]


@jobs.job("unsafe")
def unsafe(run: Run, how: str) -> Any:
    run.step("first", str, "a")
    if how == "argument":
        run.step("second", str, next(numbers))
        run.step("third", str)
    if how == "key":
        run.step("same", str)
        run.step("same", str)
    if how == "child":
        run.submit_child("a", square, n=next(numbers))
        run.join()
    if how == "fails":
        raise Fail("no such folder")
    return next(numbers) if how == "result" else None


@pytest.fixture
def kit() -> Any:
    with jobs_under_test(jobs) as kit:
        yield kit


def test_safe_code_is_run_to_its_end(kit: JobsUnderTest) -> None:
    segments.clear()
    assert kit.replay(safe, children=3, answers={"go": True}) == [1, 5, True]
    assert (
        len(segments) == 8
    )  # its start, and again after two steps, join, the deadline and the end of sleep, the answer, its end
    assert {job.status.value for job in kit.submitted()} == {"completed"}


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("argument", InputChangedError, "was called with .* in an earlier attempt"),
        ("key", InvalidInputError, "'same' was used twice"),
        ("child", InputChangedError, "was made with .*, now with"),
        ("fails", Fail, "no such folder"),
        (
            "result",
            AssertionError,
            r"unsafe returned \d+, and \d+ when it ran again .*; put what differs into run.step",
        ),
    ],
)
def test_unsafe_code_fails(kit: JobsUnderTest, how: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        kit.replay(unsafe, how=how)


def test_question_without_answer_is_named(kit: JobsUnderTest) -> None:
    with pytest.raises(AssertionError, match="the question 'go' has no answer; pass answers="):
        kit.replay(safe, children=0)


def test_question_without_answer_expires(kit: JobsUnderTest) -> None:
    @jobs.job("asks", max_attempts=1)
    def asks(run: Run) -> bool:
        return bool(run.ask("go", "Go?", bool, expires="2d"))

    with pytest.raises(QuestionExpiredError):
        kit.replay(asks)
    assert kit.replay(asks, answers={"go": False}) is False


@jobs.job("part", max_attempts=1)
def part(run: Run, how: str) -> Any:
    if how == "fails":
        raise Fail("no such folder")
    return run.ask("go", "Go?", bool) if how == "asks" else next(numbers)


@jobs.job("whole", max_attempts=1)
def whole(run: Run, how: str, collects: bool) -> Any:
    run.submit_child("part", part, how=how)
    children = run.join(errors="collect" if collects else "raise")
    return children.counts.failed if how == "fails" else children.result("part")


def test_children_fail_and_ask_as_for_a_worker(kit: JobsUnderTest) -> None:
    """Regression: a child's error that its parent collects was raised, and the question of a child was not answered."""
    assert kit.replay(whole, how="fails", collects=True) == 1
    with pytest.raises(ChildFailedError, match="no such folder"):
        kit.replay(whole, how="fails", collects=False)
    assert kit.replay(whole, how="asks", collects=False, answers={"go": True}) is True
    with pytest.raises(AssertionError, match="the question 'go' has no answer"):
        kit.replay(whole, how="asks", collects=False)


def test_unsafe_child_fails_a_parent_that_collects(kit: JobsUnderTest) -> None:
    with pytest.raises(AssertionError, match=r"part returned \d+, and \d+ when it ran again"):
        kit.replay(whole, how="differs", collects=True)


async def test_async_code_is_replayed() -> None:
    app = AsyncJobs("memory://")

    @app.job("safe")
    async def work(run: AsyncRun, nights: int) -> int:
        drawn = await run.step("draw", lambda: next(numbers))
        for night in range(nights):
            await run.sleep(f"night {night}", "12h")
        return drawn - await run.step("draw again", lambda: next(numbers))

    @app.job("unsafe")
    async def differs(run: AsyncRun) -> int:
        return next(numbers)

    with async_jobs_under_test(app) as kit:
        assert await kit.replay(work, nights=2) == -1
        with pytest.raises(AssertionError, match="put what differs into"):
            await kit.replay(differs)
