"""Handlers that ask in a child process."""

from __future__ import annotations

from milepost import AsyncRun, Jobs, Run

jobs = Jobs("memory://")


@jobs.job("asks.child", isolation="process")
def asks(run: Run) -> list[object]:
    return [run.ask("color", "Which color?", str), run.ask("late", "In time?", bool, expires=0.1, default=False)]


@jobs.job("asks_all.child", isolation="process")
def asks_all(run: Run) -> list[object]:
    return list(run.ask_all({"color": ("Which color?", str), "size": ("Which size?", int)}).values())


@jobs.job("aasks.child", isolation="process")
async def aasks(run: AsyncRun) -> list[object]:
    return [
        await run.ask("color", "Which color?", str),
        await run.ask("late", "In time?", bool, expires=0.1, default=False),
    ]
