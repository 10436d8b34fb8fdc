"""The demo server: jobs in memory, a worker, and a task that submits jobs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import FastAPI

from milepost.app import AsyncJobs
from milepost.core.job import Job
from milepost.run.forecast.history import BUSY_WRITE_INTERVAL
from milepost.settings import settings
from milepost.stores.memory.store import MemoryStore
from milepost.web import auth as auths
from milepost.web.app import create_app
from milepost.web.demo.demo_jobs import handlers

DOCUMENTS = (
    "transcript-88.txt", "crm-export.csv", "annual-report-2024.pdf", "handbook.md", "patent-US1123.pdf", "minutes.docx",
    "tickets-q3.csv", "research-notes.md", "contract-0417.pdf", "survey.html",
)  # fmt: skip
PEOPLE = ("ana", "ben", "chidi", "dana")
SUBMIT_INTERVAL = 0.5
STALLED = 8.0
SETTLE = BUSY_WRITE_INTERVAL + 1.0
QUEUED = 3
STUCK = {"path": "/data/stuck-export.csv", "seconds": 20.0}


class Demo:
    """Demo jobs in memory, and the task that submits them. `past` jobs have ended before the first page is shown;
    `running` is the number of concurrent jobs, which start `settle` seconds after that.
    """

    def __init__(self, *, past: int = 300, running: int = 24, seed: int = 7, settle: float = SETTLE) -> None:
        self.past, self.running, self.settle = past, running, settle
        options = replace(settings.current(), stalled=STALLED)
        self.jobs = AsyncJobs(MemoryStore(blocking=False), handlers=handlers, options=options)
        self._chance = random.Random(seed)

    @asynccontextmanager
    async def at_work(self, _: Any = None) -> AsyncIterator[None]:
        """Run a worker and submit jobs from the start of the server to its end."""
        async with self.jobs.run_workers(concurrency=self.running):
            submitting = asyncio.create_task(self._submit())
            try:
                yield
            finally:
                submitting.cancel()

    async def prepare(self) -> None:
        """Run short jobs first, so that there is something to show and the ETA knows the types."""
        # With separate settings these runs have a heartbeat of their own, and the later one does not learn from them.
        past = AsyncJobs(self.jobs.store, handlers=handlers, options=replace(self.jobs.settings, stalled=60.0))
        async with past.run_workers(concurrency=64):
            made = [await self._submit_one(past, seconds=0.0) for _ in range(self.past)]
            for _ in range(self.past // 25):
                wrong = await self._submit_one(past, seconds=60.0)
                await self.jobs.cancel_job(wrong.job_id, "wrong document", by=self._chance.choice(PEOPLE))
            for job in made:
                await self.jobs.wait(job.job_id)
        await self._forget_durations(after=0.0)

    async def _forget_durations(self, *, after: float) -> None:
        """Delete the run history of the short jobs, which would mislead the ETA of the others.

        Their heartbeat writes some of it up to BUSY_WRITE_INTERVAL after they ended, and the worker of the others reads
        it when it starts.
        """
        await asyncio.sleep(after)
        for item in await self.jobs.store.kv_scan("digest/"):
            await self.jobs.store.kv_delete(item.key)

    async def _submit(self) -> None:
        """Keep `running` jobs running, a few pending, and one stuck."""
        await self._forget_durations(after=self.settle)
        stuck = await self.jobs.submit("extraction", STUCK)
        while True:
            waiting, running = await self._count("pending"), await self._count("running")
            if waiting < QUEUED and waiting + running < self.running + QUEUED:
                await self._submit_one(self.jobs)
            known = await self.jobs.get_job(stuck.job_id)
            if known is None or known.is_terminal:
                stuck = await self.jobs.submit("extraction", STUCK)
            await asyncio.sleep(SUBMIT_INTERVAL)

    async def _count(self, status: str) -> int:
        return sum(count for (_, name), count in (await self.jobs.store.counts()).items() if name == status)

    async def _submit_one(self, jobs: AsyncJobs, seconds: float | None = None) -> Job:
        chance = self._chance
        kind = chance.choices(("ingestion", "extraction", "reindex", "clustering"), (5, 4, 2, 2))[0]
        given: dict[str, Any] = {"seconds": chance.uniform(30, 180) if seconds is None else seconds}
        if kind in ("ingestion", "extraction"):
            name = self._name(chance, "encrypted.pdf" if kind == "ingestion" else "malformed.csv", DOCUMENTS)
            given["path"] = f"/data/{name}"
        elif kind == "reindex":
            given["index"] = self._name(chance, "unreachable", ("docs", "tickets", "mails"))
        labels = {"owner": chance.choice(PEOPLE)}
        return await jobs.submit(kind, given, labels=labels)

    @staticmethod
    def _name(chance: random.Random, broken: str, good: Sequence[str]) -> str:
        return broken if chance.random() < 0.12 else chance.choice(good)


def create_demo(demo: Demo | None = None, *, auth: Any = None) -> FastAPI:
    """Return the demo application, with the dashboard at ``/jobs``."""
    shown = Demo() if demo is None else demo
    app = create_app(shown.jobs, auth=auths.none() if auth is None else auth)
    app.state.demo = shown
    app.state.milepost.background.append(lambda site: _from_the_start(shown))
    return app


@asynccontextmanager
async def _from_the_start(demo: Demo) -> AsyncIterator[None]:
    await demo.prepare()
    async with demo.at_work():
        yield
