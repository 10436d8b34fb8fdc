"""The demo's handlers: documents that take a while, some that fail, and one that gets stuck.

They report like any handler, with stages and tracked loops. Only the work itself is a short sleep.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Literal

from milepost.run.run import Run
from milepost.worker.handlers import Handlers

handlers = Handlers()
BATCH = 16


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
