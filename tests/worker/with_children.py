"""Handlers with children in a child process."""

from __future__ import annotations

from typing import Any

from milepost import AsyncRun, Jobs, Run

jobs = Jobs("memory://")


@jobs.job("echo.child")
def echo(run: Run, text: str) -> str:
    return text


@jobs.job("parent.child", isolation="process")
def parent(run: Run) -> Any:
    for name in "ab":
        run.submit_child(name, echo, text=name)
    children = run.join()
    return [len(children), children.result("a")]


@jobs.job("aparent.child", isolation="process")
async def aparent(run: AsyncRun) -> Any:
    for name in "ab":
        run.submit_child(name, echo, text=name)
    children = await run.join()
    return [len(children), await children.result("a")]


@jobs.job("hasty.child", isolation="process")
def hasty(run: Run) -> None:
    run.submit_child("a", echo, text="a")
