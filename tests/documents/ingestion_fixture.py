"""Run the ingestion job with a fast embedder, and read its results from the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost.documents.ingestion import ingestion
from milepost.documents.store import open_store
from tests.documents.watched_run import WatchedRun

FAST: dict[str, Any] = {"model": "hashing:64"}


def run_job(database: str, *paths: Path, watch: Any = None, **options: Any) -> tuple[dict[str, Any], WatchedRun]:
    run = WatchedRun(watch)
    result = ingestion(run, [str(path) for path in paths], database=database, **{**FAST, **options})
    return result, run


def rows(database: str) -> list[tuple[Any, ...]]:
    """Return the visible content of a store, without times."""
    store = open_store(database)
    try:
        found: list[tuple[Any, ...]] = [
            (d.uri, d.title, d.format, d.size, d.content_hash, d.chunk_count, d.warnings) for d in store.documents()
        ]
        for ids, vectors in store.chunk_vectors(100):
            found += [(chunk_id, vector.tobytes()) for chunk_id, vector in zip(ids, vectors, strict=True)]
        return found
    finally:
        store.close()


def counts(database: str) -> dict[str, int]:
    store = open_store(database)
    try:
        return store.counts()
    finally:
        store.close()
