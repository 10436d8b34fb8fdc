"""Registering handlers: what the decorator gives, and what it refuses."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from milepost import AsyncJobs, InvalidInput, Jobs, Run
from milepost.testing import fake_run
from milepost.worker.handlers import Handler, Handlers, TypeOptions, find_handler
from tests.worker import application


def double(run: Run, number: int) -> int:
    """Twice the number."""
    return 2 * number


async def adouble(run: Run, number: int) -> int:
    return 2 * number


def test_a_handler_is_called_like_the_function_that_it_is() -> None:
    handler = Jobs().job("double")(double)
    assert handler(fake_run(), 4) == 8
    assert handler(fake_run(), number=4) == 8
    assert handler.__name__ == "double"
    assert handler.__doc__ == "Twice the number."
    assert list(inspect.signature(handler).parameters) == ["run", "number"]


def test_an_async_handler_is_awaited_like_its_function() -> None:
    handler = AsyncJobs().job()(adouble)
    assert handler.job_type == "adouble"
    assert asyncio.run(handler(fake_run(), 4)) == 8


def test_a_type_has_one_handler_and_a_reload_is_no_other() -> None:
    handlers = Handlers()
    handlers.job("double")(double)
    handlers.job("double")(double)
    with pytest.raises(InvalidInput, match="is handled by"):
        handlers.job("double")(adouble)


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"timeout": "soon"},
        {"on_lost": "ignore"},
        {"isolation": "container"},
        {"concurrency": 0},
        {"priority": 1000},
        {"labels": {"a b": "c"}},
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Handlers().job("double", **options)(double)


def test_a_type_has_a_name_that_stores_can_hold() -> None:
    with pytest.raises(InvalidInput, match="job_type"):
        Handlers().job("two words")(double)


def test_a_closure_is_refused_for_process_isolation_with_the_remedy() -> None:
    def inner(run: Run) -> None: ...

    with pytest.raises(InvalidInput, match="move it to the top of a module"):
        Handlers().job("inner", isolation="process")(inner)


def test_a_function_of_a_script_is_refused_for_process_isolation_with_the_remedy() -> None:
    def scripted(run: Run) -> None: ...

    scripted.__module__, scripted.__qualname__ = "__main__", "scripted"
    with pytest.raises(InvalidInput, match="move it into a module"):
        Handlers().job("scripted", isolation="process")(scripted)


def test_an_async_function_is_refused_for_threads() -> None:
    with pytest.raises(InvalidInput, match="leave isolation out"):
        Handlers().job("adouble", isolation="thread")(adouble)


def test_a_generator_is_refused() -> None:
    def generator(run: Run) -> Any:
        yield 1

    with pytest.raises(InvalidInput, match="return a result"):
        Handlers().job("generator")(generator)


def test_a_handler_is_found_by_the_name_that_it_was_defined_with() -> None:
    assert find_handler("tests.worker.application:isolated") is application.isolated
    with pytest.raises(InvalidInput, match="keep it under the name"):
        find_handler("tests.worker.application:note")


def test_options_for_one_submit_add_up_and_unknown_ones_are_named() -> None:
    handler = Handler("double", double, TypeOptions())
    assert handler.options(priority=1).options(labels={"a": "b"}).chosen == {"priority": 1, "labels": {"a": "b"}}
    with pytest.raises(InvalidInput, match="prority: is not an option of submit"):
        handler.options(prority=1)  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="on_duplicate"):
        handler.options(on_duplicate="ignore")  # type: ignore[typeddict-item]
