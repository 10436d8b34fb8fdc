"""AsyncRun: async code gets it, and its calls that wait for the store are awaited."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from milepost import AsyncRun, InvalidInputError, Jobs, Run
from milepost.testing import fake_async_run
from milepost.worker.handlers import Handlers
from tests.waiting import PATIENCE


async def unannotated(run, name: str) -> str:  # type: ignore[no-untyped-def]
    return type(run).__name__


async def annotated(run: AsyncRun, name: str) -> str:
    return type(run).__name__


async def plain(run: Run, name: str) -> str:
    return type(run).__name__


def blocking(run: Run, name: str) -> str:
    return type(run).__name__


@pytest.mark.parametrize(
    ("function", "expected"),
    [(unannotated, "AsyncRun"), (annotated, "AsyncRun"), (plain, "Run"), (blocking, "Run")],
)
def test_handler_gets_the_run_of_its_annotation(function: Any, expected: str) -> None:
    jobs = Jobs("memory://")
    jobs.job("t")(function)
    with contextlib.closing(jobs), jobs.run_workers():
        assert jobs.result(jobs.wait(jobs.submit("t", {"name": "x"}).job_id, PATIENCE).job_id) == expected


def test_sync_handler_with_async_run_is_refused() -> None:
    def handler(run: AsyncRun) -> None: ...

    with pytest.raises(InvalidInputError, match=r"write def .*handler\(run: Run, \.\.\.\)"):
        Handlers().job("t")(handler)


async def test_sync_function_of_a_step_runs_in_a_thread() -> None:
    run = fake_async_run()
    assert await run.step("where", threading.get_ident) != threading.get_ident()
    assert len(await asyncio.gather(*[run.step(f"n:{number}", str, number) for number in range(3)])) == 3
    assert run.steps[0] == "where"


async def test_fake_async_run_takes_kept_steps() -> None:
    run = fake_async_run(steps={"quote": 7}, attempt=2)
    assert (await run.step("quote", len, "other"), run.attempt) == (7, 2)
