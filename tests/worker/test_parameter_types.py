"""Parameter types: each accepts its own values and plain JSON, survives storing, and rejects other values by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict
from uuid import UUID

import pytest
from annotated_types import Ge, Interval, Le, MaxLen, MinLen, MultipleOf
from pydantic import Field

from milepost import InvalidInputError, Jobs, Run
from milepost.run.param_types import check_schema
from milepost.worker.parameters import parameters_of

ID = UUID("01a2181c-1e2c-7000-8000-000000000000")


class Point(TypedDict):
    x: int
    y: int
    name: NotRequired[str]


def anything(run: Run, value: Any) -> None: ...
def table(run: Run, value: dict[str, Any]) -> None: ...
def uuid(run: Run, value: UUID) -> None: ...
def day(run: Run, value: date) -> None: ...
def wait(run: Run, value: timedelta) -> None: ...
def price(run: Run, value: Decimal) -> None: ...
def names(run: Run, value: tuple[str, ...]) -> None: ...
def pair(run: Run, value: tuple[int, str]) -> None: ...
def tags(run: Run, value: set[str]) -> None: ...
def frozen(run: Run, value: frozenset[int]) -> None: ...
def point(run: Run, value: Point) -> None: ...
def small(run: Run, value: Annotated[int, Interval(ge=1, lt=10)]) -> None: ...
def short(run: Run, value: Annotated[str, MinLen(2), MaxLen(4)]) -> None: ...
def few(run: Run, value: Annotated[list[Annotated[int, Ge(0)]], MaxLen(2)]) -> None: ...
def code(run: Run, value: Annotated[str, Field(pattern="^[A-Z]+$", description="a code")]) -> None: ...
def even(run: Run, value: Annotated[int, Field(gt=3, multiple_of=2)]) -> None: ...
def at_least(run: Run, value: Annotated[int | None, Ge(1)] = None) -> None: ...
def words(run: Run, value: Annotated[list[str] | str | None, MaxLen(3)] = None) -> None: ...
def options(run: Run, value: Annotated[dict[str, int], MaxLen(1)]) -> None: ...
def cheap(run: Run, value: Annotated[Decimal, Ge(Decimal("0.01"))]) -> None: ...
def brief(run: Run, value: Annotated[timedelta, Le(timedelta(hours=1)), MultipleOf(timedelta(seconds=5))]) -> None: ...
def later(run: Run, value: Annotated[date, Ge(date(2026, 1, 1))]) -> None: ...
def coded(run: Run, value: Annotated[str, Field(pattern=re.compile("^[A-Z]+$"))]) -> None: ...


ACCEPTED = [
    (anything, {"a": [1, None]}, {"a": [1, None]}),
    (table, {"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}),
    (uuid, ID, ID),
    (uuid, str(ID), ID),
    (day, date(2026, 11, 25), date(2026, 11, 25)),
    (day, "2026-11-25", date(2026, 11, 25)),
    (wait, timedelta(hours=1, seconds=0.5), timedelta(hours=1, seconds=0.5)),
    (wait, "1h30m", timedelta(minutes=90)),
    (price, Decimal("19.90"), Decimal("19.90")),
    (price, 3, Decimal(3)),
    (names, ("a", "b"), ("a", "b")),
    (pair, (1, "a"), (1, "a")),
    (tags, {"b", "a"}, {"a", "b"}),
    (frozen, frozenset({1, 2}), frozenset({1, 2})),
    (point, {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    (small, 9, 9),
    (short, "abc", "abc"),
    (few, [1, 2], [1, 2]),
    (code, "AB", "AB"),
    (even, 4, 4),
    (at_least, None, None),
    (at_least, 1, 1),
    (words, None, None),
    (words, "abc", "abc"),
    (words, ["abcd"], ["abcd"]),
    (options, {"a": 1}, {"a": 1}),
    (cheap, Decimal("0.01"), Decimal("0.01")),
    (brief, "1h", timedelta(hours=1)),
    (later, date(2026, 1, 1), date(2026, 1, 1)),
    (coded, "AB", "AB"),
]


@pytest.mark.parametrize(("handler", "given", "expected"), ACCEPTED)
def test_value_survives_storing(handler: Callable[..., Any], given: Any, expected: Any) -> None:
    parameters = parameters_of(handler)
    stored = parameters.check({"value": given})
    read = parameters.read(stored)["value"]
    assert read == expected
    assert type(read) is type(expected)
    check_schema(stored, parameters.schema)


@pytest.mark.parametrize(
    ("handler", "value", "problem"),
    [
        (uuid, "x", "is not a UUID"),
        (day, "tomorrow", "is not a date such as"),
        (wait, "soon", "is not a duration"),
        (wait, [], "is not a duration"),
        (price, "much", "is not a decimal number"),
        (price, "NaN", "is not a finite decimal number"),
        (names, ["a", 1], "1 is not text"),
        (pair, [1], "has 1 items; 2 are expected"),
        (tags, [["a"]], "is not text"),
        (point, {"x": 1}, "is missing"),
        (point, {"x": 1, "y": 2, "z": 3}, "is not a parameter"),
        (small, 0, "must be at least 1"),
        (small, 10, "must be less than 10"),
        (short, "a", "must have at least 2 characters"),
        (few, [1, 2, 3], "must have at most 2 items"),
        (few, [-1], "must be at least 0"),
        (code, "ab", "must match"),
        (even, 3, "must be greater than 3"),
        (even, 5, "must be a multiple of 2"),
        (at_least, 0, "must be at least 1"),
        (words, ["a", "b", "c", "d"], "must have at most 3 items"),
        (words, "abcd", "must have at most 3 characters"),
        (options, {"a": 1, "b": 2}, "must have at most 1 entries"),
        (cheap, "0.001", "must be at least 0.01"),
        (brief, "2h", "must be at most 1:00:00"),
        (brief, 3, "must be a multiple of 0:00:05"),
        (later, "2025-12-31", "must be at least 2026-01-01"),
        (coded, "ab", "must match"),
    ],
)
def test_wrong_value_is_rejected_by_name(handler: Callable[..., Any], value: Any, problem: str) -> None:
    """Regression: a value outside the bounds of its annotation reached the handler."""
    with pytest.raises(InvalidInputError, match=r"^value") as refused:
        parameters_of(handler).check({"value": value})
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("handler", "value"),
    [
        (small, 0),
        (short, "a"),
        (few, [1, 2, 3]),
        (code, "ab"),
        (even, 5),
        (pair, [1]),
        (at_least, 0),
        (words, "abcd"),
        (words, ["a"] * 4),
        (options, {"a": 1, "b": 2}),
        (cheap, 0.001),
        (brief, 3601),
        (coded, "ab"),
    ],
)
def test_bounds_are_published(handler: Callable[..., Any], value: Any) -> None:
    """Regression: other processes could submit values outside the bounds of a parameter."""
    with pytest.raises(InvalidInputError, match=r"^value"):
        check_schema({"value": value}, parameters_of(handler).schema)


@pytest.mark.parametrize("handler", [handler for handler, _, _ in ACCEPTED])
def test_schema_of_bounds_is_json(handler: Callable[..., Any]) -> None:
    schema = parameters_of(handler).schema
    assert json.loads(json.dumps(schema)) == schema


def on_text(run: Run, value: Annotated[str, Ge(1)]) -> None: ...
def on_number(run: Run, value: Annotated[int | None, MaxLen(3)]) -> None: ...
def on_duration(run: Run, value: Annotated[timedelta, Le(60)]) -> None: ...
def on_path(run: Run, value: Annotated[Path, MaxLen(3)]) -> None: ...
def on_choice(run: Run, value: Annotated[str, Field(pattern="(")]) -> None: ...


@pytest.mark.parametrize("handler", [on_text, on_number, on_duration, on_path, on_choice])
def test_bound_for_another_type_is_rejected_at_registration(handler: Callable[..., Any]) -> None:
    """Regression: bounds of parameters were ignored without a word."""
    with pytest.raises(InvalidInputError, match=r"\(value\): .* does not apply to values of this type"):
        parameters_of(handler)


def test_mutable_default_is_copied_for_each_run() -> None:
    """Regression: what one job appended to a default list was in the list of the next job."""
    jobs = Jobs("memory://")

    @jobs.job("collect")
    def collect(run: Run, seen: list[int] = []) -> list[int]:  # noqa: B006
        seen.append(1)
        return seen

    with jobs.run_workers():
        results = [jobs.wait(jobs.submit(collect).job_id, timeout="1m").result for _ in range(3)]
    jobs.close()
    assert results == [[1], [1], [1]]
