"""The floor with ten jobs a script."""

from __future__ import annotations

from benchmarks.peers import floor

connect = floor.connect


def work(url: str) -> None:
    """Run one script for each ten jobs."""
    floor.work(url, 10)
