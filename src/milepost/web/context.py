"""The state that the routes of one router share: manager, authentication, event hub and server lifespan."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from milepost.app import AsyncJobs, Jobs
from milepost.core.errors import InvalidInputError, StoreError
from milepost.core.job import Job
from milepost.manager.feed_follower import FeedFollower
from milepost.manager.manager import AsyncJobManager
from milepost.manager.sync import JobManager
from milepost.query.member_progress import with_member_progress
from milepost.signals import shutdown
from milepost.stores.protocol import Store
from milepost.stores.query import Page, Query
from milepost.web.auth import Auth, Authenticator
from milepost.web.http.list_params import one_job
from milepost.web.http.problems import Problem, not_found
from milepost.web.live.hub import Hub
from milepost.web.metrics import FinishedJobs
from milepost.web.security.principals import Principal, Quotas
from milepost.worker.start_forecast import Forecast, forecast, waits

log = logging.getLogger("milepost.web.context")
log.addHandler(logging.NullHandler())

CACHE_SECONDS, SHARE = 2.0, 0.05
"""Seconds for which forecasts are cached, longer if computing them would take more than this share of the time."""


class StartEstimates:
    """The queue forecast of pending jobs, shared by all requests of one server."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._forecast: Forecast | None = None
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def describe(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs. Pending worker jobs get their expected start and what they wait for; see also `with_member_progress`."""
        jobs = await with_member_progress(self._store(), jobs)
        if not any(map(waits, jobs)):
            return jobs
        if time.monotonic() >= self._until:
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._read())
            await asyncio.shield(self._task)
        known = self._forecast
        return jobs if known is None else [known.describe(job) for job in jobs]

    async def _read(self) -> None:
        begun = time.monotonic()
        try:
            self._forecast = await forecast(self._store())
        except StoreError as error:
            self._forecast = None
            log.debug("queue forecast unavailable: %s", error)
        now = time.monotonic()
        self._until = now + max(CACHE_SECONDS, (now - begun) / SHARE)


class WebContext:
    """The jobs, authentication and streams of one router. `jobs` is a manager, a `Jobs`, a URL, or a function that
    returns one.
    """

    def __init__(self, jobs: Any, auth: Auth) -> None:
        self._jobs = jobs
        self._manager: AsyncJobs | None = None
        self.app: FastAPI | None = None
        """The application to which the routes were added without dependencies; None if it included the router itself."""
        self.dashboard = "/"
        """The path of the dashboard in its application."""
        self.has_documents = False
        """Whether routes that search documents were added."""
        self.authenticator = Authenticator(auth, lambda: self.store)
        self.expected = StartEstimates(lambda: self.store)
        self.feed = FeedFollower(lambda: self.store)
        self.hub = Hub(self.feed, settings=lambda: self.manager.settings, describe=self.expected.describe)
        self.quotas = Quotas(lambda: self.manager.settings, lambda: self.store)
        self.ends = FinishedJobs(self.feed)
        self._own = False
        self.background: list[Callable[[WebContext], Any]] = []
        """Asynchronous context managers that run from the start of the server to its end."""

    @property
    def manager(self) -> AsyncJobs:
        """The asynchronous jobs, opened when first needed."""
        if self._manager is None:
            given = self._jobs() if callable(self._jobs) else self._jobs
            self._manager, self._own = open_jobs(given)
        return self._manager

    @property
    def store(self) -> Store:
        """The store of the manager."""
        return (self._manager or self.manager).store

    def workers(self, count: int) -> Any:
        """Return a context manager that runs workers. Raises InvalidInputError if there are no handlers."""
        if not isinstance(self._jobs, AsyncJobs | Jobs):
            raise InvalidInputError("workers", "a manager or a URL has no handlers; pass a Jobs")
        return self._jobs.run_workers(workers=count)

    async def visible_job(self, request: Request, job_id: str) -> Job:
        """Return a job. Raises the same 404 Problem if it does not exist or the caller may not see it."""
        job = await self.manager.get_job(job_id)
        if job is None or not principal_of(request).sees(job):
            raise not_found()
        return job

    async def may_start(
        self, principal: Principal, job_type: str, run_by: str, queue: str | None = None, origin: str = "api"
    ) -> None:
        """Refuse a job that the caller may not submit or retry. Raises Problem 403, UnknownJobTypeError.

        A job that was not made by a request may have parameters of the operator, so owners may not start it again.
        """
        if not principal.may_start(job_type, queue):
            where = f" in queue {queue!r:.100}" if principal.may_start(job_type) else ""
            text = f"This API key may not submit or retry jobs of type {job_type!r:.100}{where}"
            raise Problem(403, text, job_type=job_type)
        submissions = self.manager.submissions
        if principal.bound and run_by == "worker" and not await submissions.serves(job_type, principal.labels, origin):
            raise Problem(
                403,
                f"API keys that are restricted to labels may not start {job_type} jobs, "
                "except their own with the owner label of the results only",
            )

    async def find(self, principal: Principal, query: Query, limit: int, cursor: str | None = None) -> Page:
        """Return one page of the jobs of a query that a principal may see."""
        if principal.job_id is None:
            return await self.manager.find(principal.within(query), limit, cursor)
        return await one_job(self.store, principal.job_id, query)

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """Sweep, run background services and listen for shutdown while the server runs."""
        refuse_unshared_memory(self.store)
        heartbeat = self.manager.runtime.heartbeat
        heartbeat.retain()
        self.hub.open()
        shutdown.add(self.hub.close_soon)
        running = [start(self) for start in self.background]
        try:
            for one in running:
                await one.__aenter__()
            yield
        finally:
            shutdown.remove(self.hub.close_soon)
            self.hub.close()
            self.ends.stop()
            for one in reversed(running):
                await one.__aexit__(None, None, None)
            heartbeat.release()
            if self._own:
                await self.store.close()


def principal_of(request: Request) -> Principal:
    """Return the principal of an authenticated request."""
    principal: Principal = request.state.principal
    return principal


def job_url(request: Request, job_id: str, *, route: str = "jobs") -> str:
    """Return the URL path of a job under the prefix of a request, which is for the route `/api/ROUTE` or below it."""
    return f"{request.url.path.rpartition(f'/api/{route}')[0]}/api/jobs/{job_id}"


def open_jobs(jobs: Any) -> tuple[AsyncJobs, bool]:
    """Return the asynchronous interface to jobs, and whether its store is ours to close. Raises InvalidInputError."""
    own = isinstance(jobs, str)
    given = AsyncJobManager(jobs) if isinstance(jobs, str) else jobs
    if not isinstance(given, AsyncJobs | Jobs | AsyncJobManager | JobManager):
        raise InvalidInputError(
            "jobs", f"must be a Jobs, a manager or a store URL such as sqlite:///jobs.db, not {type(jobs).__name__}"
        )
    store = given.store.with_blocking(blocking=False)
    manager = AsyncJobManager.of(given.runtime.with_store(store), origin="api")
    own = own or store is not given.store
    return (given.with_manager(manager) if isinstance(given, AsyncJobs | Jobs) else AsyncJobs(manager)), own


def refuse_unshared_memory(store: Store) -> None:
    """Refuse a memory store in one of several server processes, which would not share it. Raises InvalidInputError."""
    if not store.shared and server_processes(sys.argv, os.environ) > 1:
        raise InvalidInputError(
            "MILEPOST_URL",
            "memory:// cannot be shared between server processes; use sqlite:///jobs.db or redis://host, or run one process",
        )


def server_processes(arguments: list[str], environment: Any) -> int:
    """Return how many processes the command that started this one asked for (uvicorn, gunicorn, hypercorn, fastapi)."""
    words = [*str(environment.get("GUNICORN_CMD_ARGS", "")).split(), *arguments[1:]]
    for position, word in enumerate(words):
        name, _, value = word.partition("=")
        if name in ("--workers", "-w"):
            value = value or (words[position + 1] if position + 1 < len(words) else "")
        elif word.startswith("-w") and word[2:].isdigit():
            value = word[2:]
        else:
            continue
        if value.isdigit():
            return int(value)
    text = str(environment.get("WEB_CONCURRENCY", ""))
    return int(text) if text.isdigit() else 1
