"""Run the same work in several threads concurrently."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_threads(work: Callable[[], T], threads: int = 2) -> list[T]:
    """Call `work` in several threads concurrently, and return the results. Raises the first exception."""
    with ThreadPoolExecutor(threads) as pool:
        calls = [pool.submit(work) for _ in range(threads)]
    return [call.result() for call in calls]
