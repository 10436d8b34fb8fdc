"""Prometheus metrics. Gauges are read from the store and this process at each scrape.

Durations, waits and cancel latencies are observed from the feed, by the server that is scraped, since its first scrape.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from milepost.core.errors import MissingExtraError, StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.ledger import TOTAL, Book
from milepost.core.serialization import from_micros
from milepost.core.usage import MILLION
from milepost.manager.feed_follower import RETRY_DELAY, FeedFollower, FeedQueue
from milepost.query.depth import DepthGauges, LimitGauges, read_depths
from milepost.query.filters import duration
from milepost.query.statistics import wait
from milepost.run.schedules import read_schedules
from milepost.worker.registry import read_workers

if TYPE_CHECKING:
    from milepost.web.context import WebContext


KINDS = frozenset({"completed", "failed", "cancelled", "retrying", "receipt"})

Listener = Callable[[Event, Job], None]


class FinishedJobs:
    """Gives each end of a job or of an attempt to `listeners`, from the first call of `begin` on."""

    def __init__(self, follower: FeedFollower) -> None:
        self.listeners: list[Listener] = []
        self.on_error: Callable[[], None] = lambda: None
        self._follower = follower
        self._queue = FeedQueue()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Follow the feed from now on, unless that has begun. Raises StoreError."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._queue, self._task = FeedQueue(), loop.create_task(self._work())
            try:
                await self._follower.subscribe(self._queue)
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop following."""
        self._follower.unsubscribe(self._queue)
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _work(self) -> None:
        while True:
            news = await self._queue.take()
            if news.error is not None:
                self.on_error()
            for event in news.events:
                if event.kind in KINDS and (job := await self._job(event.job_id)) is not None:
                    for listener in self.listeners:
                        listener(event, job)

    async def _job(self, job_id: str) -> Job | None:
        """Return a job, as soon as the store can be read."""
        while True:
            try:
                return await self._follower.store().get(job_id)
            except StoreError:
                self.on_error()
                await asyncio.sleep(RETRY_DELAY)


class SpentAmounts:
    """The counters ``milepost_usage_total``, as the store had them at the last scrape."""

    def __init__(self, registry: Any) -> None:
        from prometheus_client.core import CounterMetricFamily

        self._family = CounterMetricFamily
        self.book: Book = {}
        registry.register(self)

    def collect(self) -> Iterator[Any]:
        """Yield the metric."""
        family = self._family("milepost_usage", "What jobs have spent with add_usage", labels=["job_type", "name"])
        for (job_type, name), amount in sorted(self.book.items()):
            family.add_metric((job_type, name), amount / MILLION)
        yield family


SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class Metrics:
    """The metrics registry of one server. Raises MissingExtraError without prometheus-client."""

    def __init__(self, context: WebContext) -> None:
        try:
            import prometheus_client as prometheus
        except ModuleNotFoundError as error:
            raise MissingExtraError("metrics", "/metrics") from error
        self._prometheus: Any = prometheus
        self._context = context
        own = self._registry = prometheus.CollectorRegistry()
        gauge, counter, histogram = prometheus.Gauge, prometheus.Counter, prometheus.Histogram
        self._jobs = gauge("milepost_jobs", "Jobs in the store", ["job_type", "status"], registry=own)
        self._depths = DepthGauges(prometheus, own)
        self._limits = LimitGauges(prometheus, own)
        self._stalled = gauge("milepost_jobs_stalled", "Jobs flagged as stalled", registry=own)
        self._stopping = gauge(
            "milepost_draining_leases", "Runs that were asked to stop and have not stopped", registry=own
        )
        self._late = gauge(
            "milepost_schedule_late_seconds", "Time since a tick of a schedule came that no process has fired; 0 if none",
            ["schedule"], registry=own,
        )  # fmt: skip
        self._workers = gauge("milepost_workers", "Live workers", registry=own)
        self._streams = gauge("milepost_stream_clients", "Connected stream clients of this process", registry=own)
        self._up = gauge("milepost_store_up", "1 if the store responded to this scrape, else 0", registry=own)
        self._latency = histogram(
            "milepost_store_seconds", "Round-trip time of the store during scrapes", buckets=SECONDS, registry=own
        )
        self._errors = counter("milepost_store_errors", "Requests that the store did not answer", registry=own)
        self._took = histogram("milepost_job_duration_seconds", "Time from start to end of a job", ["job_type", "status"],
                               buckets=SECONDS, registry=own)  # fmt: skip
        self._waited = histogram("milepost_job_wait_seconds", "Time that a job was in the queue", ["job_type"],
                                 buckets=SECONDS, registry=own)  # fmt: skip
        self._lost = counter(
            "milepost_leases_lost",
            "Runs that were lost: their lease expired, or their process died",
            ["job_type"],
            registry=own,
        )
        self._cancels = histogram("milepost_cancel_seconds", "Time from a cancel to the confirmed stop of its code",
                                  buckets=SECONDS, registry=own)  # fmt: skip
        self._spent = SpentAmounts(own)
        context.ends.listeners.append(self._take)
        context.ends.on_error = self._errors.inc

    async def text(self) -> tuple[bytes, str]:
        """Return the metrics and their content type."""
        store = self._context.store
        try:
            await self._context.ends.begin()
            begun = time.perf_counter()
            counts = await store.counts()
            self._latency.observe(time.perf_counter() - begun)
            self._jobs.clear()
            for (job_type, status), count in counts.items():
                self._jobs.labels(job_type, status).set(count)
            self._depths.set(await read_depths(store))
            self._limits.set(await self._context.manager.limits())
            self._stalled.set(await self._context.manager.count_jobs(stalled=True))
            self._stopping.set(len(await store.draining_leases()))
            self._workers.set(len(await read_workers(store)))
            self._late.clear()
            now = from_micros(await store.now())
            for _, schedule in await read_schedules(store):
                if schedule.paused is None and schedule.next_at is not None:
                    self._late.labels(schedule.name).set(max(0.0, (now - schedule.next_at).total_seconds()))
            (self._spent.book,) = await store.usage([TOTAL])
            self._up.set(1)
        except StoreError:
            self._errors.inc()
            self._depths.set({})  # old numbers would scale by a queue that may be gone
            self._limits.set([])
            self._up.set(0)
        self._streams.set(self._context.hub.clients)
        return self._prometheus.generate_latest(self._registry), self._prometheus.CONTENT_TYPE_LATEST

    def _take(self, event: Event, job: Job) -> None:
        if event.kind in ("completed", "failed"):
            seconds, waited = duration(job, 0), wait(job)
            if job.completed_at is not None and seconds is not None:
                self._took.labels(job.job_type, event.kind).observe(seconds)
            if waited is not None:
                self._waited.labels(job.job_type).observe(waited)
        if event.kind in ("failed", "retrying") and job.failure is not None and job.failure.is_lost:
            self._lost.labels(job.job_type).inc()
        receipt = job.receipt
        if event.kind == "receipt" and receipt is not None and receipt.confirmed and receipt.requested_at is not None:
            stopped = receipt.stopped_at or receipt.requested_at
            self._cancels.observe(max(0.0, (stopped - receipt.requested_at).total_seconds()))
