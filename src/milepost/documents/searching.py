"""Finding what the jobs have made: chunks by what they mean, entities, neighbours, communities.

Owns the way from a question to hits. Reads the active generation, with the model it was
made with; never writes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from milepost.documents.errors import StoreBusy
from milepost.documents.pipeline import embedder_of
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Community, Entity, Hit, Neighbour

PATIENCE: Final = 5.0
"""Seconds that a question waits for a store that is locked or away. A job waits longer: nobody sits before it."""

_MAX_HITS = 1000


class Searcher:
    """Answers many queries over one store; keeps the model in memory between them."""

    def __init__(self, store: DocumentStore, *, model_path: str | None = None, endpoint: str | None = None) -> None:
        self._store = store
        self._model_path = model_path
        self._endpoint = endpoint
        self._generation: int | None = None

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The `k` (1 to 1000) chunks nearest to the query, best first; none while nothing is indexed.

        Raises `ValueError` for an empty query or a `k` out of bounds.
        """
        if not query.strip():
            raise ValueError("the query is empty")
        if not 1 <= k <= _MAX_HITS:
            raise ValueError(f"k must be from 1 to {_MAX_HITS}, not {k}")
        active = self._store.active_generation()
        if active is None:
            return []
        if active.number != self._generation:
            self._embedder = embedder_of(active, model_path=self._model_path, endpoint=self._endpoint)
            self._generation = active.number
        return self._store.nearest(self._embedder.embed([query])[0], k)


@contextmanager
def store_to_ask(database: str | Path | None = None) -> Iterator[DocumentStore]:
    """A document store for one question. Raises `StoreBusy` when it stays locked or away."""
    store = open_store(database)
    until = time.monotonic() + PATIENCE

    def wait(reason: str) -> None:
        if time.monotonic() > until:
            raise StoreBusy(reason)

    store.waiting = wait
    try:
        yield store
    finally:
        store.close()


def search(query: str, k: int = 10, *, database: str | Path | None = None) -> list[Hit]:
    """Search a document store once; see `Searcher` for many queries."""
    with store_to_ask(database) as store:
        return Searcher(store).search(query, k)


def entities(text: str = "", *, limit: int = 50, database: str | Path | None = None) -> list[Entity]:
    """Entities by number of chunks; with `text` those whose name it is, then those whose name contains it."""
    with store_to_ask(database) as store:
        return store.entities(text=text, limit=limit)


def neighbours(entity: str, *, hops: int = 1, limit: int = 50, database: str | Path | None = None) -> list[Neighbour]:
    """Entities within `hops` (1 to 4) relations of an entity, nearest and heaviest first.

    Raises `ValueError` for other `hops`.
    """
    with store_to_ask(database) as store:
        return store.neighbours(entity, hops=hops, limit=limit)


def communities(
    of: str = "entities", *, level: int | None = None, limit: int = 50, database: str | Path | None = None
) -> list[Community]:
    """Communities of `entities` or `chunks` by level and size, with their members; level 0 is the finest."""
    with store_to_ask(database) as store:
        return store.communities(of, level=level, limit=limit)
