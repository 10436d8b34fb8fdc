"""What the routes of one router share: the manager, who may, the hub, and the life of the server around them.

Owns the opening of the asynchronous face and what begins and ends with the server; knows no route.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import Request

from milepost.app import AsyncJobs, Jobs
from milepost.core.errors import InvalidInput
from milepost.core.job import Job
from milepost.manager.asynchronous import AsyncJobManager
from milepost.manager.synchronous import JobManager
from milepost.stores.protocol import Store
from milepost.tracking.pulse import pulse_of
from milepost.web.auth import Auth, Gate
from milepost.web.ends import Ends
from milepost.web.expecting import Expected
from milepost.web.hub import Hub
from milepost.web.principals import Principal
from milepost.web.problems import missing
from milepost.web.reading import Patient
from milepost.worker.shutdown import shutdown


class Face(AsyncJobs):
    """The asynchronous face that the routes use: on the store of what was given, with its handlers where it has any."""

    def __init__(self, given: AsyncJobManager | JobManager, store: Store) -> None:
        self._jobs = given if isinstance(given, AsyncJobs | Jobs) else None
        handlers = self._jobs.handlers if self._jobs is not None else None
        super().__init__(
            cast(Store, Patient(store)),
            ttl=given.ttl,
            options=given.settings,
            handlers=handlers,
            engine=self._jobs.handing if self._jobs is not None else None,
        )
        self.open_store = store

    def ensure_worker(self) -> None:
        """A job in memory is run by the thread of those who registered its handler."""
        if self._jobs is not None:
            self._jobs.ensure_worker()


class Site:
    """One router's jobs, access and streams. `jobs` is a manager, a `Jobs`, a URL, or what gives one when first asked."""

    def __init__(self, jobs: Any, auth: Auth) -> None:
        self._jobs = jobs
        self._manager: Face | None = None
        self.gate = Gate(auth, lambda: self.store)
        self.hub = Hub(lambda: self.store)
        self.ends = Ends(lambda: self.store)
        self.expected = Expected(lambda: self.store)
        self._own = False
        self.background: list[Callable[[Site], Any]] = []
        """What runs beside the server from its start to its end: asynchronous context managers."""

    @property
    def manager(self) -> Face:
        """The asynchronous face, opened when it is first needed."""
        if self._manager is None:
            given = self._jobs() if callable(self._jobs) else self._jobs
            self._manager, self._own = open_face(given)
        return self._manager

    @property
    def store(self) -> Store:
        """The store of the manager."""
        return (self._manager or self.manager).open_store

    def workers(self, count: int) -> Any:
        """Workers for the handlers that were given, as a context manager. Raises InvalidInput when there are none."""
        if not isinstance(self._jobs, AsyncJobs | Jobs):
            raise InvalidInput("workers", "a manager or a URL has no handlers; give the Jobs that has them")
        return self._jobs.running(workers=count)

    async def visible(self, request: Request, job_id: str) -> Job:
        """The job of an id, for who asks. Raises the same Problem for one that is not there and one that is not theirs."""
        job = await self.manager.get_job(job_id)
        if job is None or not who(request).sees(job):
            raise missing()
        return job

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """From the server's start to its end: sweep for everybody, hear of the shutdown."""
        refuse_private_memory(self.store)
        pulse = pulse_of(self.store, self.manager.settings, self.manager.ttl)
        pulse.keep_sweeping(True)
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
            pulse.keep_sweeping(False)
            if self._own:
                await self.store.close()


def who(request: Request) -> Principal:
    """Who asks, as the gate found."""
    principal: Principal = request.state.principal
    return principal


def place_of(request: Request, job_id: str) -> str:
    """Where a job is for who asks: beside the call of a job that they make, under its prefix."""
    return f"{request.url.path.rpartition('/api/jobs')[0]}/api/jobs/{job_id}"


def open_face(jobs: Any) -> tuple[Face, bool]:
    """The asynchronous face on somebody's jobs, and whether its store is ours to close. Raises InvalidInput."""
    if isinstance(jobs, str):
        opened = AsyncJobManager(jobs)
        return Face(opened, opened.store), True
    if isinstance(jobs, JobManager):
        return Face(jobs, jobs.store.twin(blocking=False)), True
    if isinstance(jobs, AsyncJobManager):
        return Face(jobs, jobs.store), False
    raise InvalidInput("jobs", f"a {type(jobs).__name__}; give a Jobs, a manager or a URL such as sqlite:///jobs.db")


def refuse_private_memory(store: Store) -> None:
    """Refuse to be one of several server processes that would each have jobs of their own. Raises InvalidInput."""
    if store.url.startswith("memory:") and server_processes(sys.argv, os.environ) > 1:
        raise InvalidInput(
            "MILEPOST_URL",
            "jobs in memory are not shared between server processes; set MILEPOST_URL=sqlite:///jobs.db, or run one",
        )


def server_processes(arguments: list[str], environment: Any) -> int:
    """How many processes the command that started this one asked for (uvicorn, gunicorn, hypercorn, fastapi)."""
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
