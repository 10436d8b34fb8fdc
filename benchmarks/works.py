"""The works that are measured, the peers that do each, and the ratios to reach. Owns the goals; measures nothing.

A peer is a module of `benchmarks.peers`. It does a work that is sampled by `call` when it has a function of the work's name
in lower case, which takes an `Environment` and gives a number in the work's unit; what the other works need of it is said
in `queue_peer` and `serving`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from benchmarks import sampling, serving
from benchmarks.sampling import Sample

How = Literal["call", "submit", "bulk", "drain", "pickup", "requests", "streams"]


@dataclass(frozen=True)
class Goal:
    """A ratio of milepost's figure (or of the peer `of`) to that of `to`: at least, or at most, `bound`.

    Several `to` mean the best of them.
    """

    to: str | tuple[str, ...]
    bound: float
    at_most: bool = False
    of: str = "milepost"


@dataclass(frozen=True)
class Limit:
    """The most that something else seen with milepost's sample may be, in its own unit."""

    seen: str
    bound: float


class Verdict(NamedTuple):
    """What became of a goal or limit."""

    text: str
    reached: bool


@dataclass(frozen=True)
class Work:
    """One work: what is done, in which unit, by whom, how often, and what milepost must reach."""

    name: str
    title: str
    unit: str
    peers: tuple[str, ...]
    size: int
    tiny: int
    goals: tuple[Goal | Limit, ...]
    redis: bool = True
    higher_is_better: bool = True
    how: How = "call"

    def environment(self, peer: str) -> str:
        """The name of the environment that a peer needs for it."""
        return "web" if self.how in ("requests", "streams") else peer

    def sample(self, peer: str, *, tiny: bool) -> Sample:
        """One sample of a peer."""
        size = self.tiny if tiny else self.size
        if self.how == "submit" or self.how == "bulk":
            return sampling.submit(peer, size, SECONDS, bulk=self.how == "bulk")
        if self.how == "drain":
            return sampling.drain(peer, size, SECONDS, bulk=peer in BULK_PEERS)
        if self.how == "pickup":
            return sampling.pickup(peer, size)
        if self.how == "requests":
            return serving.requests(peer, size)
        if self.how == "streams":
            return serving.streams(peer, size)
        return sampling.call(peer, self.name, size, redis=self.redis)


@dataclass(frozen=True)
class Result:
    """The samples of a work, by peer."""

    work: Work
    samples: dict[str, list[Sample]]

    def median(self, peer: str) -> float:
        """The median of a peer's figures."""
        return statistics.median(sample.figure for sample in self.samples[peer])

    def spread(self, peer: str) -> tuple[float, float]:
        """The least and the greatest of them."""
        figures = [sample.figure for sample in self.samples[peer]]
        return min(figures), max(figures)

    def more(self, peer: str) -> dict[str, float]:
        """The medians of what else was seen."""
        names = self.samples[peer][0].more
        return {name: statistics.median(sample.more[name] for sample in self.samples[peer]) for name in names}

    def verdicts(self) -> Iterator[Verdict]:
        """What became of each goal whose sides were measured."""
        for goal in self.work.goals:
            if isinstance(goal, Limit):
                found = self.more("milepost").get(goal.seen) if "milepost" in self.samples else None
                if found is not None:
                    yield Verdict(f"{goal.seen}: {found:.1f}  (at most {goal.bound:g})", found <= goal.bound)
                continue
            to = [peer for peer in ((goal.to,) if isinstance(goal.to, str) else goal.to) if peer in self.samples]
            if goal.of not in self.samples or not to:
                continue
            best = (max if self.work.higher_is_better else min)(to, key=self.median)
            ratio = self.median(goal.of) / self.median(best)
            side, reached = ("at most", ratio <= goal.bound) if goal.at_most else ("at least", ratio >= goal.bound)
            yield Verdict(f"{goal.of} / {best}: {ratio:.2f}  ({side} {goal.bound:g})", reached)


SECONDS = 3.0
"""How long a queue peer submits, and how long its worker drains, at most."""

RECORD_KEEPERS = ("arq", "bullmq", "taskiq", "saq", "dramatiq", "streaq", "docket", "celery", "rq")
QUEUE_PEERS = ("bullmq_node", "huey", *RECORD_KEEPERS)
BULK_PEERS = ("floor", "floor_ten", "milepost", "bullmq_node", "bullmq", "streaq", "rq")
ON_CELERY = ("celery", "milepost_celery", "milepost_tracked")

WORKS = {
    work.name: work
    for work in (
        Work(
            "W1",
            "tracked lifecycle: create, running, 10 progress writes with a message, completed with a result",
            "jobs/s",
            ("floor", "milepost", "milepost_async", "rq", "original"),
            1000,
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
            2000,
            5,
            (Goal("rq", 5.0),),
        ),
        Work(
            "W2",
            "no-op jobs drained by one worker process, result stored",
            "jobs/s",
            ("floor", "floor_ten", "milepost", *QUEUE_PEERS),
            30_000,
            100,
            (
                Goal("bullmq_node", 1.0),
                Goal("huey", 1.0),
                Goal(RECORD_KEEPERS, 5.0),
                Limit("worker us/job", 35),
                Limit("Redis us/job", 35),
            ),
            how="drain",
        ),
        Work(
            "W2e",
            "no-op jobs submitted, one a call",
            "jobs/s",
            ("floor", "milepost", *QUEUE_PEERS),
            5_000,
            100,
            (Goal("huey", 0.8),),
            how="submit",
        ),
        Work(
            "W2ebulk",
            "no-op jobs submitted in bulk",
            "jobs/s",
            tuple(peer for peer in BULK_PEERS if peer != "floor_ten"),
            20_000,
            100,
            (Goal("bullmq", 2.0),),
            how="bulk",
        ),
        Work(
            "W3",
            "pickup by an idle worker: from before the call to the job's first line",
            "us",
            ("floor", "milepost", *QUEUE_PEERS),
            100,
            2,
            (Goal("floor", 2.4, at_most=True), Goal(QUEUE_PEERS, 1.0, at_most=True)),
            how="pickup",
            higher_is_better=False,
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
            5_000,
            500,
            (Goal("original", 0.85, at_most=True),),
            higher_is_better=False,
        ),
        Work(
            "W8",
            "HTTP GET of a job, one uvicorn process, memory store",
            "req/s",
            ("floor", "starlette", "fastapi_bytes", "fastapi", "milepost", "milepost_keys"),
            3,
            1,
            (Goal("fastapi_bytes", 0.9), Goal("fastapi_bytes", 0.7, of="milepost_keys")),
            how="requests",
        ),
        Work(
            "W8s",
            "events delivered to 500 streams of one job, one uvicorn process",
            "events/s",
            ("floor", "starlette", "sse_starlette", "milepost"),
            500,
            5,
            (Goal("floor", 0.9),),
            how="streams",
        ),
        Work(
            "W9",
            "no-op jobs drained by one Celery worker, with and without milepost",
            "jobs/s",
            ON_CELERY,
            30_000,
            100,
            (Goal("celery", 0.8, of="milepost_celery"), Goal("celery", 0.8, of="milepost_tracked")),
            how="drain",
        ),
        Work(
            "W9e",
            "the same submitted, one a call",
            "jobs/s",
            ON_CELERY,
            5_000,
            100,
            (),
            how="submit",
        ),
    )
}
