"""A parent job that squares numbers in its children."""

from __future__ import annotations

from typing import Any

from milepost import AsyncRun, Jobs, Run


class Square:
    """A parent that squares numbers in its children, and the handlers that it needs."""

    def __init__(self, jobs: Jobs, *, is_async: bool = False) -> None:
        self.segments = 0

        @jobs.job("square", max_attempts=1)
        def square(run: Run, n: int) -> int:
            return n * n

        def parent(run: Run, numbers: list[int]) -> Any:
            self.segments += 1
            for n in numbers:
                run.submit_child(f"n:{n}", square, n=n)
            children = run.join()
            keys = sorted(child.child_key or "" for child in children)
            return [len(children), sum(children.result(f"n:{n}") for n in numbers), keys]

        async def aparent(run: AsyncRun, numbers: list[int]) -> Any:
            self.segments += 1
            for n in numbers:
                run.submit_child(f"n:{n}", square, n=n)
            children = await run.join()
            keys = sorted([child.child_key or "" async for child in children])
            return [len(children), sum([await children.result(f"n:{n}") for n in numbers]), keys]

        self.parent = jobs.job("parent", max_attempts=2)(aparent if is_async else parent)
