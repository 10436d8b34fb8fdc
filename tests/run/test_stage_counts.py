"""What stages count: nested loops, totals that turn out wrong, and numbers that are none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from milepost import InMemoryJobManager, InvalidInputError
from milepost.core.serialization import from_json
from milepost.testing import FakeRun, fake_async_run, fake_run

FILES, ROWS = 4, 10


def counted(run: FakeRun) -> list[tuple[str, float, float | None]]:
    """Return what the record says of the stages."""
    return [(stage["name"], stage["done"], stage.get("total")) for stage in from_json(run._report()["stages"])]


# --- loops inside loops ---------------------------------------------------------------------------------------------


def files(*, sized: bool) -> Any:
    return range(FILES) if sized else iter(range(FILES))


def test_loop_in_loop_leaves_count_to_outer_loop() -> None:
    run = fake_run()
    for file in run.each(files(sized=True)):
        for _ in run.each(range(ROWS)):
            assert run.fraction == file / FILES
            assert counted(run) == [("items", file, FILES)]
    assert counted(run) == [("items", FILES, FILES)]


def test_loop_in_loop_without_size_gives_no_total() -> None:
    run = fake_run()
    for file in run.each(files(sized=False)):
        for _ in run.each(range(ROWS)):
            assert counted(run) == [("items", file, None)]
    assert counted(run) == [("items", FILES, None)]


async def test_async_loop_in_loop_leaves_count_to_outer_loop() -> None:
    run = fake_async_run()
    async for file in run.each(files(sized=True)):
        async for _ in run.each(range(ROWS)):
            await asyncio.sleep(0)
            assert counted(run) == [("items", file, FILES)]
    assert counted(run) == [("items", FILES, FILES)]


def test_total_of_stage_says_which_of_nested_loops_counts() -> None:
    run = fake_run()
    with run.stage("Files", total=FILES, unit="file"):
        for _ in run.each(files(sized=True)):
            list(run.each(range(ROWS)))
    with run.stage("Rows", total=FILES * 2 * ROWS, unit="row") as rows:
        for file in run.each(files(sized=True)):
            for sheet in run.each(range(2)):
                for row in run.each(range(ROWS)):
                    assert rows.count == file * 2 * ROWS + sheet * ROWS + row
    assert counted(run) == [("Files", FILES, FILES), ("Rows", FILES * 2 * ROWS, FILES * 2 * ROWS)]


def test_loops_one_after_another_in_stage_add_up() -> None:
    run = fake_run()
    with run.stage("Both"):
        list(run.each(range(2)))
        assert counted(run) == [("Both", 2, 2)]
        for _ in run.each(range(3)):
            pass
        assert counted(run) == [("Both", 5, 5)]
        list(run.each(iter(range(3))))
        assert counted(run) == [("Both", 8, None)]


def test_loop_left_by_break_keeps_its_count() -> None:
    run = fake_run()
    with run.stage("Both", total=10):
        for number in run.each(range(5)):
            if number == 3:
                break
        list(run.each(range(5)))
        assert counted(run) == [("Both", 8, 10)]


def test_loops_side_by_side_count_once() -> None:
    run = fake_run()
    for one, _ in zip(run.each(range(3)), run.each(range(5)), strict=False):
        assert counted(run) == [("items", one, 3)]
    assert counted(run) == [("items", 3, 3)]


def test_loop_that_runs_twice_is_two_stages() -> None:
    run = fake_run()
    loop = run.each(range(3))
    assert list(loop) + list(loop) == [0, 1, 2, 0, 1, 2]
    assert counted(run) == [("items", 3, 3), ("items", 3, 3)]


def test_count_by_hand_leaves_out_loops_that_are_too_large() -> None:
    run = fake_run()
    with run.stage("Files", total=FILES, unit="file") as stage:
        for file in range(FILES):
            for row in run.each(range(ROWS)):
                assert counted(run) == [("Files", row, None) if file == 0 else ("Files", file, FILES)]
            stage.advance()
            assert counted(run) == [("Files", file + 1, FILES)]
    with run.stage("Rest", total=10) as stage:
        stage.advance(4)
        list(run.each(range(6)))
    with run.stage("Low", total=10):
        list(run.each(range(12)))
    assert counted(run)[1:] == [("Rest", 10, 10), ("Low", 12, None)]


# --- maps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("how", [{}, {"resume": False}])
def test_map_counts_into_open_stage(concurrency: int, how: dict[str, Any]) -> None:
    run = fake_run()
    with run.stage("Pages", total=7):
        run.map(str, range(3), concurrency=concurrency, unit="page", **how)
        assert counted(run) == [("Pages", 3, 7)]
        assert run.fraction == pytest.approx(3 / 7)
        run.map(str, range(4), concurrency=concurrency, **how)
        assert counted(run) == [("Pages", 7, 7)]
    with run.stage("Unsized"):
        run.map(str, range(3), concurrency=concurrency, **how)
    assert counted(run)[1:] == [("Unsized", 3, 3)]
    assert [stage["unit"] for stage in from_json(run._report()["stages"])] == ["page", "item"]


async def test_maps_side_by_side_count_into_their_stages() -> None:
    run = fake_async_run()

    async def call(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def stage(name: str, size: int) -> list[int]:
        async with run.stage(name, total=size):
            return await run.map(call, range(size), concurrency=2)

    results = await asyncio.gather(stage("A", 3), stage("B", 5))
    assert results == [[0, 1, 2], [0, 1, 2, 3, 4]]
    assert counted(run) == [("A", 3, 3), ("B", 5, 5)]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_loop_in_map_leaves_count_to_map(concurrency: int) -> None:
    run = fake_run()
    run.map(lambda _: list(run.each(range(ROWS))), range(FILES), concurrency=concurrency)
    assert counted(run) == [("items", FILES, FILES)]
    with run.stage("Rows", total=FILES * ROWS, unit="row"):
        run.map(lambda _: list(run.each(range(ROWS))), range(FILES), concurrency=concurrency)
    assert counted(run)[1:] == [("Rows", FILES * ROWS, FILES * ROWS)]


def test_map_in_loop_leaves_count_to_loop() -> None:
    run = fake_run()
    for file in run.each(files(sized=True)):
        assert counted(run) == [("items", file, FILES)]
        run.map(str, range(ROWS))
    assert counted(run) == [("items", FILES, FILES)]
    with run.stage("Rows", total=FILES * ROWS, unit="row"):
        for _ in run.each(files(sized=True)):
            run.map(str, range(ROWS))
    assert counted(run)[1:] == [("Rows", FILES * ROWS, FILES * ROWS)]


def test_map_that_raises_keeps_its_count() -> None:
    run = fake_run()
    with pytest.raises(ZeroDivisionError), run.stage("Pages", total=5):
        run.map(lambda number: 1 // (3 - number), range(5))
    assert counted(run) == [("Pages", 3, 5)]


# --- totals that turn out wrong -------------------------------------------------------------------------------------


def test_stage_beyond_its_total_has_none() -> None:
    run = fake_run()
    with run.stage("Up", total=4) as stage:
        stage.advance(4)
        assert (counted(run), run.progress_known) == ([("Up", 4, 4)], True)
        stage.advance(4)
        assert (counted(run), run.progress_known) == ([("Up", 8, None)], False)
        stage.total = 16
        assert (counted(run), run.progress_known) == ([("Up", 8, 16)], True)


def test_list_that_grows_in_its_loop_has_no_total_beyond_its_first() -> None:
    run = fake_run()
    todo = [1, 2, 3]
    for number in run.each(todo):
        if len(todo) < 6:
            todo.append(number)
    assert counted(run) == [("items", 6, None)]


def test_rounded_sum_of_parts_keeps_total() -> None:
    run = fake_run()
    with run.stage("Parts", total=0.3) as stage:
        for _ in range(3):
            stage.advance(0.1)
        assert stage.count > 0.3
        assert counted(run)[0][2] == 0.3


class Unsized:
    """Items whose length is unknown, as those of some data loaders."""

    def __len__(self) -> int:
        raise TypeError("this loader has no length")

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def test_items_without_length_have_no_total() -> None:
    run = fake_run()
    assert list(run.each(Unsized())) == [0, 1, 2]
    assert next(iter(fake_run().each(range(10**30)))) == 0
    assert counted(run) == [("items", 3, None)]


# --- many stages ----------------------------------------------------------------------------------------------------


def test_run_keeps_newest_of_many_stages() -> None:
    run = fake_run()
    with run.stage("Weighted", weight=20):
        pass
    with run.stage("Files", weight=80, total=1000) as files:
        for number in run.each(range(1000)):
            with run.stage(f"File {number}"), run.stage("Part"):
                pass
        assert run.fraction == 1.0
    with run.stage("Last"):
        names = [name for name, _, _ in counted(run)]
    assert files.count == 1000
    assert names[:2] == ["Weighted", "Files"]
    assert names[-3:] == ["File 999", "Part", "Last"]
    assert 100 <= len(names) <= 200


# --- numbers --------------------------------------------------------------------------------------------------------

NUMBERS: list[Any] = [4, np.int64(4), np.float32(4), Decimal(4)]
ODD: list[Any] = [float("nan"), float("inf"), -float("inf"), 10**400, "4", [4]]


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_numbers_of_libraries_count(number: Any) -> None:
    run = fake_run()
    with run.stage("Load", total=number, weight=number) as stage:
        stage.advance(number - 1)
        stage.advance(number == 4)
        assert counted(run) == [("Load", 4, 4)]
    run.progress(number / 8)
    assert fake_progress(number / 8) == 0.5
    run.add_usage(usd=number)
    assert from_json(run._report()["usage"]) == {"usd": 4_000_000}


def fake_progress(fraction: Any) -> float:
    run = fake_run()
    run.progress(fraction)
    return run.fraction


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:8])
def test_what_is_no_number_takes_no_stage_away(odd: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = fake_run()
    with run.stage("Good", total=10) as good, caplog.at_level(logging.WARNING):
        good.advance(3)
        with run.stage("Total", total=odd) as stage:
            stage.advance()
        with run.stage("Count", total=10) as stage:
            stage.advance(odd)
            stage.advance(2)
        with run.stage("Weight", weight=odd, total=2):
            pass
        list(run.each(range(2), stage="Loop", total=odd))
        assert counted(run) == [
            ("Good", 3, 10),
            ("Total", 1, None),
            ("Count", 2, 10),
            ("Weight", 0, 2),
            ("Loop", 2, None),
        ]
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 4
    assert all("is not a finite number; ignored" in line for line in logged)


def test_percent_of_library_is_refused_as_percent() -> None:
    with pytest.raises(InvalidInputError, match=r"did you mean 0\.5"):
        fake_run().progress(np.int64(50))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit", "shown"), [(None, "item"), ("", "item"), ("a\nb", "a b"), ("x" * 65, "x" * 61 + "...")]
)
def test_unit_is_one_short_line(unit: Any, shown: str) -> None:
    run = fake_run()
    with run.stage("Load", unit=unit), run.stage("Pages"):
        list(run.each([1], unit=unit))
    assert [stage.unit for stage in run.stages] == [shown, shown]


def test_usage_error_quotes_what_is_no_number() -> None:
    with pytest.raises(InvalidInputError, match="tokens: '3' must be a number"):
        fake_run().add_usage(tokens="3")  # type: ignore[arg-type]


def test_negative_advance_corrects_count_but_not_below_zero(caplog: pytest.LogCaptureFixture) -> None:
    with fake_run().stage("Load", total=10) as stage:
        stage.advance(5)
        stage.advance(-3)
        assert stage.count == 2
        for amount in (-3, -2.5):
            stage.advance(amount)
            assert stage.count == 2
    assert caplog.messages == [
        f"advance of stage 'Load': {amount} would make its count negative; ignored" for amount in (-3, -2.5)
    ]


def test_negative_weight_of_stage_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    run = fake_run()
    with run.stage("Load", weight=-1):
        pass
    with run.stage("Embed", weight=1):
        assert 0 <= run.fraction <= 0.5
    assert caplog.messages == ["weight of stage 'Load': -1 is negative; ignored"]


@pytest.mark.parametrize(
    "weight", [10**400, pytest.param(10**5000, id="long"), 0, -1, float("nan"), float("inf"), "9", None, True]
)
def test_weight_of_planned_stage_is_checked(weight: Any) -> None:
    """Regression: OverflowError for a number that no float can be."""
    with pytest.raises(InvalidInputError, match=r"^plan: .* must be a name, or a name and a weight above 0"):
        fake_run().plan("Load", ("Embed", weight))
    with pytest.raises(InvalidInputError, match=r"^plan: .* must be a name, or a name and a weight above 0"):
        InMemoryJobManager().track(plan={"Embed": weight})


@pytest.mark.parametrize("stage", [(), ("Embed",), ("Embed", 1, 2), 5, ["Embed", 1]])
def test_planned_stage_is_a_name_or_a_pair(stage: Any) -> None:
    """Regression: ValueError of the unpacking."""
    with pytest.raises(InvalidInputError, match=r"^plan: "):
        fake_run().plan(stage)
