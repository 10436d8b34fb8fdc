"""Registering handlers: what the decorator returns and what it rejects."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

import pytest

from milepost import AsyncJobs, InvalidInputError, Jobs, Run
from milepost.testing import fake_run
from milepost.worker.handlers import Handler, Handlers, TypeOptions, find_handler
from tests.worker import application


def double(run: Run, number: int) -> int:
    """Return twice the number."""
    return 2 * number


async def adouble(run: Run, number: int) -> int:
    return 2 * number


def test_handler_is_called_like_its_function() -> None:
    handler = Jobs().job("double")(double)
    assert handler(fake_run(), 4) == 8
    assert handler(fake_run(), number=4) == 8
    assert handler.__name__ == "double"
    assert handler.__doc__ == "Return twice the number."
    assert list(inspect.signature(handler).parameters) == ["run", "number"]


def test_async_handler_is_awaited_like_its_function() -> None:
    handler = AsyncJobs().job()(adouble)
    assert handler.job_type == "adouble"
    assert asyncio.run(handler(fake_run(), 4)) == 8


def test_type_has_one_handler_and_accepts_reload() -> None:
    handlers = Handlers()
    handlers.job("double")(double)
    handlers.job("double")(double)
    with pytest.raises(InvalidInputError, match="already has the handler"):
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
def test_invalid_type_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        Handlers().job("double", **options)(double)


def test_invalid_type_name_is_rejected() -> None:
    with pytest.raises(InvalidInputError, match="job_type"):
        Handlers().job("two words")(double)


def test_closure_is_rejected_for_process_isolation() -> None:
    def inner(run: Run) -> None: ...

    with pytest.raises(InvalidInputError, match="move it to module level"):
        Handlers().job("inner", isolation="process")(inner)


def test_script_function_is_rejected_for_process_isolation() -> None:
    def scripted(run: Run) -> None: ...

    scripted.__module__, scripted.__qualname__ = "__main__", "scripted"
    with pytest.raises(InvalidInputError, match="move it to a module"):
        Handlers().job("scripted", isolation="process")(scripted)


def test_async_function_is_rejected_for_thread_isolation() -> None:
    with pytest.raises(InvalidInputError, match="omit isolation"):
        Handlers().job("adouble", isolation="thread")(adouble)


def test_generator_is_rejected() -> None:
    def generator(run: Run) -> Any:
        yield 1

    with pytest.raises(InvalidInputError, match="return a result"):
        Handlers().job("generator")(generator)


def test_handler_is_found_by_its_reference() -> None:
    assert find_handler("tests.worker.application:isolated") is application.isolated
    with pytest.raises(InvalidInputError, match="keep the handler under the name"):
        find_handler("tests.worker.application:note")


def plain(run: Run) -> None:
    """A function whose name is not that of a handler."""


def test_function_is_importable_under_each_job_type_while_its_name_leads_to_it() -> None:
    """Regression: a function with a handler was refused for a child process once it was registered under a second job type."""
    assert Handlers().job("again", isolation="process")(application.isolated.function).is_importable
    assert not Handlers().job("unnamed", isolation="process")(plain).is_importable


def test_submit_options_merge_and_unknown_is_rejected() -> None:
    handler = Handler("double", double, TypeOptions())
    assert handler.options(priority=1).options(labels={"a": "b"}).given == {"priority": 1, "labels": {"a": "b"}}
    with pytest.raises(InvalidInputError, match="prority: is not an option of submit"):
        handler.options(prority=1)  # type: ignore[call-arg]
    with pytest.raises(InvalidInputError, match="on_duplicate"):
        handler.options(on_duplicate="ignore")  # type: ignore[typeddict-item]


class Service:
    """An object whose methods are registered."""

    def work(self, run: Run, number: int) -> int:
        return number + 1

    @staticmethod
    def plain(run: Run) -> int:
        return 1


def test_decorator_without_parentheses_registers_function() -> None:
    """Regression: `@jobs.job` without parentheses was accepted, and only the submit failed, with an error that named
    a local function.
    """
    jobs, async_jobs = Jobs("memory://"), AsyncJobs("memory://")
    assert jobs.job(double).job_type == "double"
    assert async_jobs.job(adouble).job_type == "adouble"
    assert list(jobs.handlers) == ["double"]


def test_bound_and_static_methods_are_registered() -> None:
    jobs = Jobs("memory://")
    assert jobs.job("work")(Service().work)(fake_run(), 1) == 2
    assert jobs.job("plain")(Service.plain)(fake_run()) == 1


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (Service.work, "is a method; register it on an object"),
        (functools.partial(double, number=2), "is not a function; define one that calls it"),
        (Service(), "is not a function; define one that calls it"),
    ],
)
def test_what_is_not_a_function_is_rejected_with_remedy(function: Any, remedy: str) -> None:
    """Regression: a method took `self` for the run, and a partial object raised AttributeError."""
    with pytest.raises(InvalidInputError, match=remedy):
        Jobs("memory://").job("x")(function)


def test_lambda_needs_a_name() -> None:
    jobs = Jobs("memory://")
    with pytest.raises(InvalidInputError, match="has no name; write"):
        jobs.job(lambda run: None)
    assert jobs.job("named")(lambda run: None).job_type == "named"
