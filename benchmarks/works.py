"""The works that are measured, the peers that do each, and the ratios to reach. Owns the goals; measures nothing.

A peer is a module of `benchmarks.peers`; it does a work when it has a function of the work's name in lower case, which
takes an `Environment` and gives a number in the work's unit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A ratio of milepost's figure (or of the peer `of`) to that of `to`: at least, or at most, `bound`."""

    to: str
    bound: float
    at_most: bool = False
    of: str = "milepost"


@dataclass(frozen=True)
class Work:
    """One work: what is done, in which unit, by whom, how often, and what milepost must reach."""

    name: str
    title: str
    unit: str
    peers: tuple[str, ...]
    size: int
    tiny: int
    goals: tuple[Goal, ...]
    redis: bool = True
    higher_is_better: bool = True


WORKS = {
    work.name: work
    for work in (
        Work(
            "W1",
            "tracked lifecycle: create, running, 10 progress writes with a message, completed with a result",
            "jobs/s",
            ("floor", "milepost", "milepost_async", "rq", "original"),
            400,
            5,
            (
                Goal("floor", 0.6),
                Goal("rq", 1.1),
                Goal("original", 2.2),
                Goal("rq", 0.85, of="milepost_async"),
            ),
        ),
        Work(
            "W1b",
            "the same through track(), progress coalesced",
            "jobs/s",
            ("floor", "milepost", "rq"),
            400,
            5,
            (Goal("rq", 5.0),),
        ),
        Work(
            "W4",
            "one step of a tracked loop",
            "ns",
            ("floor", "milepost", "tqdm"),
            2_000_000,
            20_000,
            (Goal("tqdm", 0.7, at_most=True),),
            redis=False,
            higher_is_better=False,
        ),
        Work(
            "W4b",
            "one stage.advance(), one tqdm.update()",
            "ns",
            ("milepost", "tqdm"),
            2_000_000,
            20_000,
            (Goal("tqdm", 0.6, at_most=True),),
            redis=False,
            higher_is_better=False,
        ),
        Work(
            "W5",
            "newest 100 failed of one type among 100,000",
            "ms",
            ("floor", "milepost", "original"),
            100_000,
            2_000,
            (Goal("floor", 1.5, at_most=True),),
            higher_is_better=False,
        ),
        Work(
            "W5all",
            "newest 100 of all among 100,000",
            "ms",
            ("floor", "milepost"),
            100_000,
            2_000,
            (Goal("floor", 2.5, at_most=True),),
            higher_is_better=False,
        ),
        Work(
            "W5label",
            "newest 100 failed of one type with a label among 100,000",
            "ms",
            ("floor", "milepost"),
            100_000,
            2_000,
            (Goal("floor", 5.0, at_most=True),),
            higher_is_better=False,
        ),
        Work(
            "W6",
            "memory in Redis for one finished record (100 B metadata, 100 B result), indexes and lifecycle events included",
            "B",
            ("floor", "milepost", "original", "rq"),
            20_000,
            500,
            (Goal("original", 0.85, at_most=True),),
            higher_is_better=False,
        ),
    )
}
