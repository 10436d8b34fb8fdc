"""The state of a loop: when it is restored, what it accepts, and what is kept of it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from milepost import AsyncJobManager, InvalidInputError, JobManager
from milepost.core.errors import JobReleased
from milepost.core.serialization import from_json
from milepost.run.state import STATE_BYTES
from milepost.stores.factory import open_store
from milepost.testing import FakeRun, fake_run
from tests.run.conftest import log_lines
from tests.run.resumed_run import resumed
from tests.waiting import current


class Away(Exception):
    """What interrupts an attempt."""


def interrupted(run: FakeRun, items: Any, at: int, state: Any, **how: Any) -> FakeRun:
    """Return the run of the next attempt, after one that was interrupted at an item, with a heartbeat at each item."""
    with contextlib.suppress(Away):
        for number, item in enumerate(run.each(items, state=state, **how)):
            run._loops.snapshots._next_at.clear()  # these values are small, and the test has no time to wait
            run._report()
            if number == at:
                raise Away
            state.sum += item
    return resumed(run)


# --- when it is restored ----------------------------------------------------------------------------------------------


@pytest.mark.timing
def test_state_survives_an_error_on_every_store(manager: JobManager) -> None:
    for fails in (True, False):
        with contextlib.suppress(Away), manager.track("sum", unique_key="k") as run:
            state = run.state(sum=0)
            for number in run.each(range(40), state=state):
                run._report()  # asks for a snapshot, as each heartbeat does
                if number == 30 and fails:
                    raise Away
                state.sum += number
            run.result = state.sum
    job = current(manager, run)
    assert (job.result, job.attempt) == (sum(range(40)), 2)
    logs = [line["text"] for e in manager.events(run.job_id) if e.kind == "log" for line in (e.data or {})["lines"]]
    assert [line for line in logs if line.startswith("resumed at item ")] != []
    assert all("state" not in (event.data or {}) for event in manager.events(run.job_id))
    assert "state" not in job.record


@pytest.mark.timing
async def test_async_state_survives_an_error_on_every_store(url: str, options: Any) -> None:
    manager = AsyncJobManager(open_store(url, namespace=options.namespace, blocking=False), options=options)
    for fails in (True, False):
        with contextlib.suppress(Away):
            async with manager.track("sum", unique_key="k") as run:
                state = run.state(sum=0)
                async for number in run.each(range(40), state=state):
                    run._report()
                    if number == 30 and fails:
                        raise Away
                    state.sum += number
                run.result = state.sum
    job = await manager.get_job(run.job_id)
    assert job is not None
    assert (job.result, job.attempt) == (sum(range(40)), 2)
    await manager.close()


def test_state_has_its_initial_values_until_its_loop_is_entered() -> None:
    run = fake_run()
    again = interrupted(run, range(10), 6, run.state(sum=0))
    state = again.state(sum=0)
    assert state.sum == 0
    loop = iter(again.each(range(10), state=state))
    assert state.sum == sum(range(6))
    assert next(loop) == 6
    assert log_lines(again) == ["resumed at item 7 of 10, 6 passed over"]


def test_finished_loop_hands_out_nothing_and_leaves_its_last_state() -> None:
    run = fake_run()
    state = run.state(sum=0)
    for number in run.each(range(5), state=state):
        state.sum += number
    state.sum = -1  # what code after the loop does is not part of it
    again = resumed(run)
    restored = again.state(sum=0)
    assert list(again.each(range(5), state=restored)) == []
    assert restored.sum == 10


@pytest.mark.parametrize("end", ["break", "error", "stop"])
def test_no_snapshot_is_taken_when_a_loop_is_left(end: str) -> None:
    run = fake_run()
    state = run.state(sum=0)
    with contextlib.suppress(Away, BaseException):
        for number in run.each(range(10), state=state):
            state.sum += 1
            if number == 4:
                if end == "break":
                    break
                if end == "stop":
                    run.cancel()
                    run.check()
                raise Away
    assert "state" not in run._report()


@pytest.mark.parametrize("batch", [None, 2])
def test_stop_between_items_keeps_the_state_of_the_last_one(batch: int | None) -> None:
    """Regression: after a stop the next attempt did the item again that had ended last, or those since the last heartbeat."""
    run, done = fake_run(), []
    while len(done) < 6:
        state = run.state(sum=0)
        with contextlib.suppress(JobReleased):
            for item in run.each(range(6), state=state, batch=batch):
                done += item if isinstance(item, list) else [item]
                state.sum = sum(done)
                run.stop(JobReleased("shutting down"))
        run = resumed(run)
    assert done == [0, 1, 2, 3, 4, 5]


async def test_stop_between_async_items_keeps_the_state_of_the_last_one() -> None:
    run, done = fake_run(), []
    while len(done) < 6:
        state = run.state(sum=0)
        with contextlib.suppress(JobReleased):
            async for item in run.each(range(6), state=state):
                done.append(item)
                state.sum += item
                run.stop(JobReleased("shutting down"))
        run = resumed(run)
    assert done == [0, 1, 2, 3, 4, 5]


def test_fields_that_are_stored_win_and_new_ones_take_their_initial_value() -> None:
    run = fake_run()
    again = interrupted(run, range(10), 6, run.state(sum=0))
    state = again.state(sum=7, added="new")
    next(iter(again.each(range(10), state=state)))
    assert (state.sum, state.added) == (15, "new")


def test_other_version_starts_the_loop_over_and_the_log_says_so() -> None:
    run = fake_run()
    again = interrupted(run, range(10), 6, run.state(sum=0))
    state = again.state(version=2, sum=0)
    assert list(again.each(range(10), state=state)) == list(range(10))
    [line] = log_lines(again)
    assert line == (
        "starting again at item 1; the last run had reached item 7 of 10 (state of version 1 then, version=2 now)"
    )


def test_containers_of_the_state_are_restored_in_place() -> None:
    run = fake_run()
    state = run.state(seen=[], counts={"a": [1]})
    for number in run.each(range(3), state=state):
        state.seen.append(number)
    again = resumed(run)
    state = again.state(seen=[], counts={"a": []})
    seen, inner = state.seen, state.counts["a"]
    list(again.each(range(3), state=state))
    assert (seen, inner) == ([0, 1, 2], [1])


# --- what is refused --------------------------------------------------------------------------------------------------


def test_state_of_another_run_or_in_two_loops_at_once_is_refused() -> None:
    run = fake_run()
    with pytest.raises(InvalidInputError, match="was not made by run"):
        run.each([1], state=fake_run().state(sum=0))
    state = run.state(sum=0)
    loop = iter(run.each([1, 2], stage="A", state=state))
    next(loop)
    with pytest.raises(InvalidInputError, match="one state belongs to one loop at a time"):
        run.each([1, 2], stage="B", state=state)


@pytest.mark.parametrize("outer", ["state", "resume"])
def test_state_inside_of_a_loop_that_continues_is_refused(outer: str) -> None:
    run = fake_run()
    how: dict[str, Any] = {"state": run.state(sum=0)} if outer == "state" else {"resume": True}
    inner = run.state(sum=0)
    for _ in run.each([1], stage="Outer", **how):
        with pytest.raises(InvalidInputError, match="use a plain loop inside"):
            run.each([1], state=inner)
        assert list(run.each([1, 2])) == [1, 2]


def test_state_refuses_sets_and_a_checkpoint_of_its_own() -> None:
    """Sets have another order in each process, and a checkpoint a second position: a retry passed over items not done."""
    run = fake_run(last_checkpoint=3)
    with pytest.raises(InvalidInputError, match="a checkpoint of its own"):
        run.each([1], state=run.state(sum=0))
    run = fake_run()
    for items in ({1, 2}, frozenset({1}), iter({1, 2}), {"a": 1}.keys() & {"a"}):
        with pytest.raises(InvalidInputError, match=r"sorted\(items\)"):
            run.each(items, state=run.state(sum=0))
    for ordered in ({"a": 1}, {"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()):
        assert len(list(run.each(ordered, stage=type(ordered).__name__, state=run.state(sum=0)))) == 1


@pytest.mark.parametrize(
    "value",
    [{1, 2}, (1, 2), {3: 1}, Decimal(1), Counter("a"), dataclasses.make_dataclass("D", [])(), b"x", [{"a": (1,)}]],
)
def test_value_that_would_not_come_back_equal_is_refused_when_first_saved(value: Any) -> None:
    """After a retry `{3: 1}` was `{"3": 1}`, and sets and tuples were lists, so that results were wrong without an error."""
    run = fake_run()
    with pytest.raises(InvalidInputError, match=r"state\.value.*(declare the type|would come back)"):
        iter(run.each([1], state=run.state(value=value)))


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, 1.0, 1, True, None, "\ud800 \n", 10**40, [], {"a": [{"b": None}]}]
)
def test_value_of_json_comes_back_equal_and_of_its_type(value: Any) -> None:
    run = fake_run()
    list(run.each([1], state=run.state(value=value)))
    again = resumed(run)
    state = again.state(value=0)
    list(again.each([1], state=state))
    assert state.value == value
    assert type(state.value) is type(value)


def test_value_of_another_type_than_declared_is_refused() -> None:
    @dataclasses.dataclass
    class Totals:
        words: int = 0

    run = fake_run()
    totals = run.state(Totals)
    totals.words = "many"  # type: ignore[assignment] # that is the mistake
    assert list(run.each([], state=totals)) == []  # a str is plain JSON
    totals.words = {1}  # type: ignore[assignment] # that is the mistake
    with pytest.raises(InvalidInputError, match=r"state"):
        list(run.each([1], stage="B", state=totals))


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_first_state_over_its_bound_is_refused() -> None:
    run = fake_run()
    with pytest.raises(InvalidInputError, match=f"the limit is {STATE_BYTES}"):
        iter(run.each([1], state=run.state(text="x" * STATE_BYTES)))


def test_state_that_outgrows_its_bound_keeps_its_last_good_snapshot(caplog: pytest.LogCaptureFixture) -> None:
    run = fake_run()
    state = run.state(texts=[])
    for _ in run.each(range(9), state=state):
        run._loops.snapshots._next_at.clear()
        run._report()
        state.texts.append("x" * 50_000)
    report = run._report()
    kept = from_json(report["state"])["items"]
    assert 4 <= kept["n"] <= 5
    assert f"the limit is {STATE_BYTES}" in report["state_error"]
    assert caplog.text.count("state is not kept any more") == 1
    again = resumed(run)
    restored = again.state(texts=[])
    for _ in again.each(range(9), state=restored):
        restored.texts.append("x" * 50_000)
    assert restored.texts == state.texts
