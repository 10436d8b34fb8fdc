"""Search the active index for chunks, and look up entities, neighbours and communities.

A model that reads query and text together may rank the hits, at an endpoint ``/rerank``. Its form is that of Cohere, Jina,
vLLM, llama.cpp and Text Embeddings Inference behind them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

from milepost.core.errors import InvalidInputError
from milepost.documents.configuration import current
from milepost.documents.embed import Embedder
from milepost.documents.errors import GenerationChangedError, StoreBusyError
from milepost.documents.http_endpoint import HttpEndpoint, MalformedResponseError
from milepost.documents.pipeline import embedder_of
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.filters import DocumentFilter, Where
from milepost.documents.store.records import Community, Entity, Generation, Hit, Neighbour, StoredDocument
from milepost.documents.store.searches import MEANING_WEIGHT, NAME_MEANING_WEIGHT
from milepost.documents.words import is_name, query_terms

_MIN_CANDIDATES: Final = 50
_TRIES: Final = 3


def candidates(k: int, most: int) -> int:
    """Return how many hits of a search are worth reranking for the best `k`."""
    return min(most, max(2 * k, _MIN_CANDIDATES))


class Reranker:
    """The operator's reranking server. Raises InvalidInputError if none is configured."""

    def __init__(self, *, max_wait: float) -> None:
        configuration = current()
        if configuration.rerank_url is None:
            raise InvalidInputError("rerank", "this server has no reranker; its operator must set MILEPOST_RERANK_URL")
        self._model = configuration.rerank_model
        self._endpoint = HttpEndpoint(
            configuration.rerank_url, key=configuration.rerank_key, timeout=max_wait, max_wait=max_wait
        )

    def rank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits by relevance, best first, which is their new score. Raises `EndpointError`."""
        if not hits:
            return []
        texts = [f"{hit.heading}\n{hit.text}" if hit.heading else hit.text for hit in hits]
        body: dict[str, Any] = {"query": query, "documents": texts, "top_n": len(texts)}
        if self._model is not None:
            body["model"] = self._model
        scores = self._endpoint.post("/rerank", body, lambda answer: _scores(answer, len(texts)), tries=_TRIES)
        ranked = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
        return sorted(ranked, key=lambda hit: -hit.score)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()


def _scores(answer: dict[str, Any], count: int) -> list[float]:
    """Return the score of each text. Raises MalformedResponseError unless each has one."""
    found: dict[int, float] = {}
    results = answer.get("results")
    for result in results if isinstance(results, list) else []:
        index, score = (
            (result.get("index"), result.get("relevance_score")) if isinstance(result, dict) else (None, None)
        )
        if isinstance(index, int) and isinstance(score, int | float) and math.isfinite(score):
            found[index] = float(score)
    if set(found) != set(range(count)):
        raise MalformedResponseError("the reranking server sent a response without a relevance_score for each text")
    return [found[index] for index in range(count)]


Mode: TypeAlias = Literal["hybrid", "meaning", "words"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
"""How a search ranks: by meaning and words, or by one of them."""
MAX_WAIT_SECONDS: Final = 5.0
"""Seconds that a search waits for a busy store or endpoint. A job waits longer, because no user waits for it."""

_MAX_HITS = 1000
_MAX_CONTEXT = 5


class _Chosen(TypedDict):
    only: DocumentFilter
    per_document: bool
    min_score: float | None
    context: int


class Searcher:
    """Runs many searches over one store, with the model kept in memory."""

    def __init__(self, store: DocumentStore, *, model_path: str | None = None, endpoint: str | None = None) -> None:
        self._store = store
        self._model_path = model_path
        self._endpoint = endpoint
        self._made: tuple[int, Embedder] | None = None
        self._reranker: Reranker | None = None

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        under: str | None = None,
        format: str | None = None,
        since: str | None = None,
        where: Where | None = None,
        owner: str | None = None,
        per_document: bool = False,
        min_score: float | None = None,
        context: int = 0,
        rerank: bool = False,
    ) -> list[Hit]:
        """Return the `k` (1 to 1000) chunks that match the query best, best first; none if nothing is indexed.

        `meaning` scores by the cosine of the vectors, `words` by the share of the query's words that a chunk has, rare
        words counting more. `hybrid` scores by both, names (up to three words) mostly by words. Without FTS5, SQLite stores search by meaning only.

        `under` restricts the search to a folder's or document's URI, or to keys that begin with it and a slash; `format` to
        a format such as `pdf`; `since` (ISO 8601) to documents ingested at or after a time; `where` to documents with these
        values of metadata, such as ``{"team": "engines", "year": [1842, 1843]}``; `owner` to those of a value of the owner
        label. `per_document` returns one hit per document. Hits that score less than `min_score` are left out. Hits have
        the texts of `context` (0 to 5) chunks before and after them. With `rerank` the best 50 hits or more are ranked by the
        operator's reranking server, whose relevance is then the score.

        Raises `ValueError` for an empty query or a `k` out of range, and `EndpointError` if the index uses an endpoint
        that fails.
        """
        if not query.strip():
            raise ValueError("the query must not be empty")
        if not 1 <= k <= _MAX_HITS:
            raise ValueError(f"k must be from 1 to {_MAX_HITS}, not {k}")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        if not 0 <= context <= _MAX_CONTEXT:
            raise ValueError(f"context must be from 0 to {_MAX_CONTEXT}, not {context}")
        only = DocumentFilter(under, format, since, where, owner)
        chosen: _Chosen = {"only": only, "per_document": per_document, "min_score": min_score, "context": context}
        if not rerank:
            return self._find(query, k, mode, chosen)
        self._reranker = self._reranker or Reranker(max_wait=MAX_WAIT_SECONDS)
        found = self._find(query, candidates(k, _MAX_HITS), mode, {**chosen, "min_score": None})
        ranked = self._reranker.rank(query, found)
        return [hit for hit in ranked if min_score is None or hit.score >= min_score][:k]

    def _find(self, query: str, k: int, mode: Mode, chosen: _Chosen) -> list[Hit]:
        terms = None if mode == "meaning" else query_terms(query)
        if mode == "words":
            if not self._store.has_words():
                raise ValueError(
                    "mode=words requires SQLite with FTS5, which this Python does not have; use mode=meaning"
                )
            return self._store.search(k, terms=terms, **chosen)
        while (active := self._store.active_generation()) is not None:
            vector = self._embedder(active).embed([query])[0]
            try:
                weight = NAME_MEANING_WEIGHT if is_name(query) else MEANING_WEIGHT
                return self._store.search(
                    k, vector=vector, terms=terms, generation=active.number, meaning_weight=weight, **chosen
                )
            except GenerationChangedError:
                continue  # a reindex switched models after the query was embedded
        return []

    def _embedder(self, generation: Generation) -> Embedder:
        if self._made is None or self._made[0] != generation.number:
            embedder = embedder_of(
                generation, model_path=self._model_path, endpoint=self._endpoint, max_wait=MAX_WAIT_SECONDS
            )
            self._made = (generation.number, embedder)
            return embedder
        return self._made[1]


@contextmanager
def open_for_search(database: str | Path | None = None) -> Iterator[DocumentStore]:
    """Return a document store for one search. Raises `StoreBusyError` if it stays locked or unavailable."""
    store = open_store(database)
    until = time.monotonic() + MAX_WAIT_SECONDS

    def wait(reason: str) -> None:
        if time.monotonic() > until:
            raise StoreBusyError(reason)

    store.on_wait = wait
    try:
        yield store
    finally:
        store.close()


def search(
    query: str,
    k: int = 10,
    *,
    mode: Mode = "hybrid",
    under: str | None = None,
    format: str | None = None,
    since: str | None = None,
    where: Where | None = None,
    owner: str | None = None,
    per_document: bool = False,
    min_score: float | None = None,
    context: int = 0,
    rerank: bool = False,
    database: str | Path | None = None,
) -> list[Hit]:
    """Search a document store once, as `Searcher.search` does for many searches."""
    with open_for_search(database) as store:
        return Searcher(store).search(
            query,
            k,
            mode=mode,
            under=under,
            format=format,
            since=since,
            where=where,
            owner=owner,
            per_document=per_document,
            min_score=min_score,
            context=context,
            rerank=rerank,
        )


def list_documents(
    text: str = "",
    *,
    under: str | None = None,
    format: str | None = None,
    since: str | None = None,
    where: Where | None = None,
    owner: str | None = None,
    after: str = "",
    limit: int = 50,
    database: str | Path | None = None,
) -> list[StoredDocument]:
    """Return documents in the order of their URIs, from the one after the URI or id `after`.

    `text` is a part of the URI or title; the other filters restrict the documents as in a search.
    """
    with open_for_search(database) as store:
        only = DocumentFilter(under, format, since, where, owner)
        return store.list_documents(text, only=only, after=after, limit=limit)


def get_document(name: str, *, owner: str | None = None, database: str | Path | None = None) -> StoredDocument | None:
    """Return the document with this id, URI or key, or None. With `owner` only a document of it.

    Raises `InvalidInputError` if several owners have documents of this URI or key.
    """
    with open_for_search(database) as store:
        return store.find_document(name, owner=owner)


def delete_document(name: str, *, owner: str | None = None, database: str | Path | None = None) -> bool:
    """Delete a document by its id, URI or key, with its chunks and entities. Return False if it does not exist.

    With `owner` only a document of it is deleted. Raises `InvalidInputError` if several owners have documents of this URI
    or key.
    """
    with open_for_search(database) as store:
        found = store.find_document(name, owner=owner)
        return found is not None and store.delete_document(found.document_id)


def entities(text: str = "", *, limit: int = 50, database: str | Path | None = None) -> list[Entity]:
    """Return entities by number of chunks. With `text`, exact names come first, then names that contain it."""
    with open_for_search(database) as store:
        return store.entities(text=text, limit=limit)


def neighbours(entity: str, *, hops: int = 1, limit: int = 50, database: str | Path | None = None) -> list[Neighbour]:
    """Return entities within `hops` (1 to 4) relations of an entity, nearest and strongest first.

    Raises `ValueError` for other `hops`.
    """
    with open_for_search(database) as store:
        return store.neighbours(entity, hops=hops, limit=limit)


def communities(
    of: str = "entities", *, level: int | None = None, limit: int = 50, database: str | Path | None = None
) -> list[Community]:
    """Return communities of `entities` or `chunks` by level and size, with their members. Level 0 is the finest."""
    with open_for_search(database) as store:
        return store.communities(of, level=level, limit=limit)
