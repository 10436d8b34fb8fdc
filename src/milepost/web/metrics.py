"""Numbers for Prometheus. Owns their names; what a scrape shows is read from the store and from this process then.

Durations, waits and cancel latencies are observed from the feed, from the first scrape on, by the server that is scraped.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from milepost.core.errors import MissingExtra, StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.filters import duration
from milepost.web.site import Site
from milepost.web.tallies import wait
from milepost.worker.published import read_workers

log = logging.getLogger("milepost.metrics")
log.addHandler(logging.NullHandler())

SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class Metrics:
    """The registry of one site. Raises MissingExtra without prometheus-client."""

    def __init__(self, site: Site) -> None:
        try:
            import prometheus_client as prometheus
        except ModuleNotFoundError as error:
            raise MissingExtra("metrics", "/metrics") from error
        self._prometheus: Any = prometheus
        self._site = site
        own = self._registry = prometheus.CollectorRegistry()
        gauge, counter, histogram = prometheus.Gauge, prometheus.Counter, prometheus.Histogram
        self._jobs = gauge("milepost_jobs", "Jobs in the store", ["job_type", "status"], registry=own)
        self._stalled = gauge("milepost_jobs_stalled", "Jobs that are flagged as stalled", registry=own)
        self._stopping = gauge("milepost_stopping_leases", "Runs that were told to stop and have not", registry=own)
        self._workers = gauge("milepost_workers", "Workers that live", registry=own)
        self._streams = gauge("milepost_stream_clients", "Clients of live streams of this process", registry=own)
        self._up = gauge("milepost_store_up", "Whether the store answered this scrape", registry=own)
        self._latency = histogram("milepost_store_seconds", "Round trips of scrapes", buckets=SECONDS, registry=own)
        self._errors = counter("milepost_store_errors", "Times that the store did not answer", registry=own)
        self._took = histogram("milepost_job_duration_seconds", "From start to end of a job", ["job_type", "status"],
                               buckets=SECONDS, registry=own)  # fmt: skip
        self._waited = histogram("milepost_job_wait_seconds", "From creation to start of a job", ["job_type"],
                                 buckets=SECONDS, registry=own)  # fmt: skip
        self._lost = counter("milepost_leases_lost", "Runs whose lease ran out", ["job_type"], registry=own)
        self._cancels = histogram("milepost_cancel_seconds", "From a cancel to the confirmed stop of its code",
                                  buckets=SECONDS, registry=own)  # fmt: skip
        site.ends.listeners.append(self._take)
        site.ends.on_error = self._errors.inc

    async def text(self) -> tuple[bytes, str]:
        """The numbers, and their content type."""
        self._site.ends.begin()
        store = self._site.store
        begun = time.perf_counter()
        try:
            counts = await store.counts()
            self._latency.observe(time.perf_counter() - begun)
            self._jobs.clear()
            for (job_type, status), count in counts.items():
                self._jobs.labels(job_type, status).set(count)
            self._stalled.set(await self._site.manager.count_jobs(stalled=True))
            self._stopping.set(len(await store.stoppings()))
            self._workers.set(len(await read_workers(store)))
            self._up.set(1)
        except StoreError:
            self._errors.inc()
            self._up.set(0)
        self._streams.set(self._site.hub.clients)
        return self._prometheus.generate_latest(self._registry), self._prometheus.CONTENT_TYPE_LATEST

    def _take(self, event: Event, job: Job) -> None:
        if event.kind in ("completed", "failed"):
            seconds, waited = duration(job, 0), wait(job)
            if job.completed_at is not None and seconds is not None:
                self._took.labels(job.job_type, event.kind).observe(seconds)
            if waited is not None:
                self._waited.labels(job.job_type).observe(waited)
        if event.kind in ("failed", "retrying") and "lease ran out" in str(event.data.get("error", "")):
            self._lost.labels(job.job_type).inc()
        receipt = job.receipt
        if event.kind == "receipt" and receipt is not None and receipt.confirmed and receipt.requested_at is not None:
            stopped = receipt.stopped_at or receipt.requested_at
            self._cancels.observe(max(0.0, (stopped - receipt.requested_at).total_seconds()))
