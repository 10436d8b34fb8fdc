"""The workloads, their peers, and the ratios to reach.

A peer is a module of `benchmarks.peers`. For a workload that is sampled by `call` it has a function of the workload's name,
which takes an `Environment` and returns a number in the workload's unit. The other workloads are described in `queue_peer`
and `http_load`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from benchmarks import http_load, sampler
from benchmarks.sampler import Sample

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
    """The upper limit of another figure of milepost's sample, in its own unit."""

    seen: str
    bound: float


class Verdict(NamedTuple):
    """The outcome of a goal or limit."""

    text: str
    reached: bool


@dataclass(frozen=True)
class Workload:
    """One workload: what is measured, its unit, its peers, its size, and milepost's goals."""

    name: str
    title: str
    unit: str
    peers: tuple[str, ...]
    size: int
    tiny: int
    goals: tuple[Goal | Limit, ...]
    redis: bool = True
    server: Literal["Redis", "PostgreSQL"] = "Redis"
    higher_is_better: bool = True
    how: How = "call"

    def environment(self, peer: str) -> str:
        """Return the name of the environment that a peer needs."""
        return "web" if self.how in ("requests", "streams") else peer

    def sample(self, peer: str, *, tiny: bool) -> Sample:
        """Take one sample of a peer."""
        size = self.tiny if tiny else self.size
        if self.how == "submit" or self.how == "bulk":
            return sampler.submit(peer, size, SECONDS, bulk=self.how == "bulk", on=self.server)
        if self.how == "drain":
            return sampler.drain(peer, size, SECONDS, bulk=peer in BULK_PEERS, on=self.server)
        if self.how == "pickup":
            return sampler.pickup(peer, size, on=self.server)
        if self.how == "requests":
            return http_load.requests(peer, size)
        if self.how == "streams":
            return http_load.streams(peer, size)
        return sampler.call(peer, self.name, size, redis=self.redis)


@dataclass(frozen=True)
class Result:
    """The samples of a workload, by peer."""

    work: Workload
    samples: dict[str, list[Sample]]

    def median(self, peer: str) -> float:
        """Return the median of a peer's figures."""
        return statistics.median(sample.figure for sample in self.samples[peer])

    def spread(self, peer: str) -> tuple[float, float]:
        """Return the least and the greatest of a peer's figures."""
        figures = [sample.figure for sample in self.samples[peer]]
        return min(figures), max(figures)

    def more(self, peer: str) -> dict[str, float]:
        """Return the medians of a peer's other figures."""
        names = self.samples[peer][0].more
        return {name: statistics.median(sample.more[name] for sample in self.samples[peer]) for name in names}

    def verdicts(self) -> Iterator[Verdict]:
        """Yield the outcome of each goal with measured sides."""
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
"""Maximum seconds for which a queue peer submits, and for which its worker drains."""

RECORD_KEEPERS = ("arq", "bullmq", "taskiq", "saq", "dramatiq", "streaq", "docket", "celery", "rq")
QUEUE_PEERS = ("bullmq_node", "huey", *RECORD_KEEPERS)
POSTGRES_PEERS = ("procrastinate", "pgqueuer", "dbos", "pg_boss")
POSTGRES = ("postgres_floor", "milepost", *POSTGRES_PEERS, "graphile_worker")
REDIS_BULK_PEERS = ("floor", "milepost", "bullmq_node", "bullmq", "streaq", "rq")
BULK_PEERS = ("floor_batched", *REDIS_BULK_PEERS, *(peer for peer in POSTGRES if peer != "dbos"))
CELERY_PEERS = ("celery", "milepost_celery", "milepost_tracked")

WORKLOADS = {
    work.name: work
    for work in (
        Workload(
            "lifecycle",
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
        Workload(
            "lifecycle_coalesced",
            "the same through track(), progress coalesced",
            "jobs/s",
            ("floor", "milepost", "rq"),
            2000,
            5,
            (Goal("rq", 5.0),),
        ),
        Workload(
            "drain",
            "no-op jobs drained by one worker process, result stored",
            "jobs/s",
            ("floor", "floor_batched", "milepost", *QUEUE_PEERS),
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
        Workload(
            "submit",
            "no-op jobs submitted, one a call",
            "jobs/s",
            ("floor", "milepost", *QUEUE_PEERS),
            5_000,
            100,
            (Goal("huey", 0.8),),
            how="submit",
        ),
        Workload(
            "submit_bulk",
            "no-op jobs submitted in bulk",
            "jobs/s",
            REDIS_BULK_PEERS,
            20_000,
            100,
            (Goal("bullmq", 2.0),),
            how="bulk",
        ),
        Workload(
            "pickup",
            "pickup by an idle worker: from before the call to the job's first line",
            "us",
            ("floor", "milepost", *QUEUE_PEERS),
            100,
            2,
            (Goal("floor", 2.4, at_most=True), Goal(QUEUE_PEERS, 1.0, at_most=True)),
            how="pickup",
            higher_is_better=False,
        ),
        Workload(
            "loop_step",
            "one step of a tracked loop",
            "ns",
            ("floor", "milepost", "tqdm"),
            2_000_000,
            20_000,
            (Goal("tqdm", 0.7, at_most=True),),
            redis=False,
            higher_is_better=False,
        ),
        Workload(
            "stage_advance",
            "one stage.advance(), one tqdm.update()",
            "ns",
            ("milepost", "tqdm"),
            2_000_000,
            20_000,
            (Goal("tqdm", 0.6, at_most=True),),
            redis=False,
            higher_is_better=False,
        ),
        Workload(
            "list_failed",
            "newest 100 failed of one type among 100,000",
            "ms",
            ("floor", "milepost", "original"),
            100_000,
            2_000,
            (Goal("floor", 1.5, at_most=True),),
            higher_is_better=False,
        ),
        Workload(
            "list_newest",
            "newest 100 of all among 100,000",
            "ms",
            ("floor", "milepost"),
            100_000,
            2_000,
            (Goal("floor", 2.5, at_most=True),),
            higher_is_better=False,
        ),
        Workload(
            "list_label",
            "newest 100 failed of one type with a label among 100,000",
            "ms",
            ("floor", "milepost"),
            100_000,
            2_000,
            (Goal("floor", 5.0, at_most=True),),
            higher_is_better=False,
        ),
        Workload(
            "record_memory",
            "memory in Redis for one finished record (100 B metadata, 100 B result), indexes and lifecycle events included",
            "B",
            ("floor", "milepost", "original", "rq"),
            5_000,
            500,
            (Goal("original", 0.85, at_most=True),),
            higher_is_better=False,
        ),
        Workload(
            "http_get",
            "HTTP GET of a job, one uvicorn process, memory store",
            "req/s",
            ("floor", "starlette", "fastapi_bytes", "fastapi", "milepost", "milepost_keys"),
            3,
            1,
            (Goal("fastapi_bytes", 0.9), Goal("fastapi_bytes", 0.7, of="milepost_keys")),
            how="requests",
        ),
        Workload(
            "sse_fanout",
            "events delivered to 500 streams of one job, one uvicorn process",
            "events/s",
            ("floor", "starlette", "sse_starlette", "milepost"),
            500,
            5,
            (Goal("floor", 0.9),),
            how="streams",
        ),
        Workload(
            "postgres_drain",
            "no-op jobs on PostgreSQL drained by one worker process",
            "jobs/s",
            POSTGRES,
            30_000,
            100,
            (Goal(POSTGRES_PEERS, 1.0),),
            server="PostgreSQL",
            how="drain",
        ),
        Workload(
            "postgres_submit",
            "no-op jobs submitted to PostgreSQL, one a call",
            "jobs/s",
            POSTGRES,
            5_000,
            100,
            (),
            server="PostgreSQL",
            how="submit",
        ),
        Workload(
            "postgres_submit_bulk",
            "no-op jobs submitted to PostgreSQL in bulk",
            "jobs/s",
            tuple(peer for peer in POSTGRES if peer != "dbos"),
            20_000,
            100,
            (Goal(POSTGRES_PEERS, 1.0),),
            server="PostgreSQL",
            how="bulk",
        ),
        Workload(
            "postgres_pickup",
            "pickup on PostgreSQL by an idle worker in another process: from before the call to the job's first line",
            "us",
            POSTGRES,
            100,
            2,
            (),
            server="PostgreSQL",
            how="pickup",
            higher_is_better=False,
        ),
        Workload(
            "celery_drain",
            "no-op jobs drained by one Celery worker, with and without milepost",
            "jobs/s",
            CELERY_PEERS,
            30_000,
            100,
            (Goal("celery", 0.8, of="milepost_celery"), Goal("celery", 0.8, of="milepost_tracked")),
            how="drain",
        ),
        Workload(
            "celery_submit",
            "the same submitted, one a call",
            "jobs/s",
            CELERY_PEERS,
            5_000,
            100,
            (),
            how="submit",
        ),
    )
}
