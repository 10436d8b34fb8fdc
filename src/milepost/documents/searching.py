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

from milepost.documents.embed import Embedder
from milepost.documents.errors import GenerationChanged, StoreBusy
from milepost.documents.pipeline import embedder_of
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Community, Entity, Generation, Hit, Neighbour

PATIENCE: Final = 5.0
"""Seconds that a question waits for a store or an endpoint that is busy or away. A job waits longer: nobody sits before it."""

_MAX_HITS = 1000


class Searcher:
    """Answers many queries over one store; keeps the model in memory between them."""

    def __init__(self, store: DocumentStore, *, model_path: str | None = None, endpoint: str | None = None) -> None:
        self._store = store
        self._model_path = model_path
        self._endpoint = endpoint
        self._made: tuple[int, Embedder] | None = None

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The `k` (1 to 1000) chunks nearest to the query, best first; none while nothing is indexed.

        Raises `ValueError` for an empty query or a `k` out of bounds, `EndpointError` when the index's model is
        behind an endpoint that refuses or stays away.
        """
        if not query.strip():
            raise ValueError("the query is empty")
        if not 1 <= k <= _MAX_HITS:
            raise ValueError(f"k must be from 1 to {_MAX_HITS}, not {k}")
        while (active := self._store.active_generation()) is not None:
            vector = self._embedder(active).embed([query])[0]
            try:
                return self._store.nearest(vector, k, generation=active.number)
            except GenerationChanged:
                continue  # a reindex was faster: the vector is of the model before
        return []

    def _embedder(self, generation: Generation) -> Embedder:
        if self._made is None or self._made[0] != generation.number:
            embedder = embedder_of(generation, model_path=self._model_path, endpoint=self._endpoint, patience=PATIENCE)
            self._made = (generation.number, embedder)
            return embedder
        return self._made[1]


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
