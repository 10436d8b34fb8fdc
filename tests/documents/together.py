"""The same work by several threads at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def at_once(work: Callable[[], T], threads: int = 2) -> list[T]:
    """Call it in so many threads together; what each gave. Raises what the first that failed raised."""
    with ThreadPoolExecutor(threads) as pool:
        calls = [pool.submit(work) for _ in range(threads)]
    return [call.result() for call in calls]
