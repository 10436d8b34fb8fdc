"""The demo server: jobs in memory, a worker, and a task that submits jobs."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal

from fastapi import FastAPI

from milepost.app import AsyncJobs
from milepost.core.job import Job
from milepost.run.forecast.history import BUSY_WRITE_INTERVAL
from milepost.run.run import Run
from milepost.settings import settings
from milepost.stores.memory.store import MemoryStore
from milepost.stores.scan import scan_all
from milepost.web import auth as auths
from milepost.web.app import create_app
from milepost.worker.handlers import Handlers

handlers = Handlers()
BATCH = 16
PRICES = {"small": 2e-7, "large": 2.5e-6}
"""The price of a token, in US dollars."""


class PdfError(Exception):
    """Raised if a document cannot be read."""


def size_of(path: str) -> int:
    """Return the number of chunks of a document, always the same for one name; enough that no step looks stalled."""
    return 720 + zlib.crc32(path.encode()) % 720


async def work(count: int, whole: int, seconds: float) -> None:
    """Sleep for the share of `seconds` that `count` of all chunks take."""
    await asyncio.sleep(seconds * count / whole)


@handlers.job("ingestion")
async def ingest(run: Run, path: str, chunk_size: int = 512, seconds: float = 60.0) -> dict[str, Any]:
    """Read a document, cut it into chunks and embed them."""
    chunks = size_of(path)
    pages = chunks // 12
    async for page in run.each(range(pages), stage="Reading pages", unit="page", weight=2):
        if "encrypted" in path and page == pages // 2:
            raise PdfError(f"page {page + 1} cannot be decrypted")
        await work(1, pages, 0.2 * seconds)
    async for _ in run.each(range(chunks), stage="Cutting chunks", unit="chunk", weight=1, batch=BATCH):
        await work(BATCH, chunks, 0.1 * seconds)
    async for batch in run.each(range(chunks), stage="Adding embeddings", unit="chunk", weight=7, batch=BATCH):
        await work(len(batch), chunks, 0.7 * seconds)
        if batch[0] % 64 == 0:
            run.log(f"embedded chunks {batch[0]} to {batch[-1]}", "debug")
    return {"summary": f"{chunks:,} chunks of {chunk_size} tokens", "chunks": chunks, "pages": pages}


@handlers.job("extraction")
async def extract(
    run: Run, path: str, model: Literal["small", "large"] = "small", seconds: float = 90.0
) -> dict[str, Any]:
    """Find the entities in a document. The next attempt resumes from the last checkpoint."""
    chunks = size_of(path)
    begin = int(run.last_checkpoint or 0)
    if begin:
        run.log(f"resumed from the checkpoint at chunk {begin:,}")
    entities = 3 * begin
    with run.stage("Extracting entities", total=chunks, unit="chunk") as stage:
        stage.advance(begin)
        for at in range(begin, chunks, BATCH):
            count = min(BATCH, chunks - at)
            await work(count, chunks, seconds)
            entities += 3 * count
            run.add_usage(tokens=410 * count, usd=410 * count * PRICES[model])
            stage.advance(count)
            if at % 128 == 0 and at > begin:
                await run.acheckpoint(at)
                run.log(f"{entities:,} entities so far")
            if at > chunks // 2:
                await fail_or_hang(run, path, begin)
    run.progress(message=f"{entities:,} entities with the {model} model")
    return {"summary": f"{entities:,} entities", "entities": entities, "model": model}


async def fail_or_hang(run: Run, path: str, begin: int) -> None:
    """Fail for a malformed document, and hang for a stuck one unless it was resumed."""
    if "malformed" in path:
        raise ValueError("model returned malformed JSON: Expecting ',' delimiter at column 4711")
    while "stuck" in path and not begin:
        await asyncio.sleep(0.5)
        run.check()


@handlers.job("reindex")
async def reindex(run: Run, index: str = "docs", seconds: float = 120.0) -> dict[str, Any]:
    """Rebuild an index, vector by vector."""
    vectors = 10 * size_of(index)
    async for batch in run.each(range(vectors), unit="vector", batch=10 * BATCH):
        await work(len(batch), vectors, seconds)
        if index == "unreachable" and batch[0] > vectors // 3:
            raise ConnectionError("the index does not answer")
    return {"summary": f"{vectors:,} vectors in {index}", "vectors": vectors}


@handlers.job("clustering", concurrency=2)
async def cluster(run: Run, resolution: float = 1.0, seconds: float = 100.0) -> dict[str, Any]:
    """Find communities in a number of passes that is not known in advance."""
    with run.stage("Computing neighbours", total=400, unit="node") as stage:
        for _ in range(40):
            await work(10, 400, 0.5 * seconds)
            stage.advance(10)
    for number in (1, 2):
        with run.stage(f"Pass {number}", total=400, unit="node") as stage:
            for _ in range(20):
                await work(20, 400, 0.25 * seconds)
                stage.advance(20)
        run.log(f"modularity {0.61 + 0.05 * number:.2f} at resolution {resolution:g}")
    return {"summary": "37 communities", "communities": 37}


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

    def __init__(self, *, past: int = 300, running: int = 24, settle: float = SETTLE) -> None:
        self.past, self.running, self.settle = past, running, settle
        options = replace(settings.current(), stalled=STALLED)
        self.jobs = AsyncJobs(MemoryStore(blocking=False), handlers=handlers, options=options)
        self._chance = random.Random(7)

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
        async for item in scan_all(self.jobs.store, "digest/"):
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
    app.state.milepost.background.append(lambda _: _from_the_start(shown))
    return app


@asynccontextmanager
async def _from_the_start(demo: Demo) -> AsyncIterator[None]:
    await demo.prepare()
    async with demo.at_work():
        yield
