"""The extraction job: entities and their relations are found in the chunks that are there.

Owns the progress and the result of the job. What was found in a chunk and the mark that
it is done are written together, so a job that was killed goes on where it was, and
running it again finds nothing to do.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from milepost.documents import wording
from milepost.documents.extract import Extractor, FailedChunk, get_extractor
from milepost.documents.pipeline import embedder_of, existing_generation
from milepost.documents.stages import TimedStages, said_by
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import ChunkText, Extraction
from milepost.tracking.run import Run

COMMIT_CHUNKS: Final = 64
_ENTITIES_AT_ONCE: Final = 64
_LISTED: Final = 1000
_SECONDS_PER_ENTITY: Final = 0.0034
_ENTITIES_PER_ROOT: Final = 37
"""Measured: 105 chunks have 378 entities, 2,518 have 1,114: many chunks speak of the same."""


class NothingExtracted(ValueError):
    """No chunk could be extracted."""


def extraction(
    run: Run,
    *,
    database: str | None = None,
    extractor: Literal["auto", "spacy", "rules", "llm"] = "auto",
    endpoint: str | None = None,
    llm_model: str | None = None,
    embed: bool = True,
    model_path: str | None = None,
) -> dict[str, Any]:
    """Find entities and relations in every chunk that was not extracted this way yet.

    `endpoint` and `llm_model` are for the extractor `llm`. With `embed` the names of
    entities get vectors as well. The result counts `chunks` (of these `extracted` now,
    `failed_chunks` with their messages), `entities`, `mentions`, `relations` and `seconds`.
    Raises `EmptyStore` when nothing was ingested yet, `NothingExtracted` when every chunk failed.
    """
    finder = get_extractor(extractor, endpoint=endpoint, llm_model=llm_model, waiting=said_by(run))
    store = open_store(database)
    try:
        store.waiting = said_by(run)
        existing_generation(store)
        return _Extraction(run, store, finder).extract(embed=embed, model_path=model_path)
    finally:
        finder.close()
        store.close()


class _Extraction:
    """The stages of one job and what they have counted."""

    def __init__(self, run: Run, store: DocumentStore, extractor: Extractor) -> None:
        self._run = run
        self._store = store
        self._extractor = extractor
        self._extracted = self._embedded = 0
        self._failed: dict[str, str] = {}
        self._stages = TimedStages(run)

    def extract(self, *, embed: bool, model_path: str | None) -> dict[str, Any]:
        """Run all stages and return the job's result."""
        loading, finding, embedding = _shares(self._extractor, self._store.counts()["chunks"], embed=embed)
        with self._stages.stage("load", "Loading the model", weight=loading, unit="model"):
            configuration = self._extractor.configuration
        self._find(configuration, finding)
        with self._stages.stage("persist", "Counting", weight=0.01, unit="entity"):
            self._store.recount_entities()
        if embed:
            self._embed(model_path, embedding)
        counts = self._store.counts()
        unchanged = counts["chunks"] - self._extracted - len(self._failed)
        self._run.progress(
            message=wording.extracted(
                chunks=self._extracted,
                unchanged=unchanged,
                failed=len(self._failed),
                entities=counts["entities"],
                relations=counts["relations"],
            )
        )
        return {
            "chunks": counts["chunks"],
            "extracted": self._extracted,
            "unchanged": unchanged,
            "failed_chunks": [
                {"chunk": chunk_id, "message": message} for chunk_id, message in list(self._failed.items())[:_LISTED]
            ],
            "entities": counts["entities"],
            "mentions": counts["mentions"],
            "relations": counts["relations"],
            "entities_embedded": self._embedded,
            "extractor": configuration,
            "warnings": list(self._extractor.warnings),
            "seconds": self._stages.seconds,
            "database": str(self._store),
        } | ({"failed_unlisted": more} if (more := len(self._failed) - _LISTED) > 0 else {})

    def _find(self, configuration: str, weight: float) -> None:
        total = self._store.count_unextracted(configuration)
        with self._stages.stage("extract", "Extracting", weight=weight, total=total, unit="chunk") as stage:
            while batch := self._next_batch(configuration):
                found: list[Extraction] = []
                for outcome in self._extractor.extract(batch, tick=self._run.check):
                    if isinstance(outcome, FailedChunk):
                        self._fail(outcome)
                    else:
                        found.append(outcome)
                    stage.advance(1)
                self._store.save_extractions(configuration, found)
                self._extracted += len(found)
                self._run.checkpoint({"extracted": self._extracted})
        if self._failed and not self._extracted and len(self._failed) == self._store.counts()["chunks"]:
            first = next(iter(self._failed.values()))
            raise NothingExtracted(f"all {len(self._failed)} chunks failed: {first}")

    def _next_batch(self, configuration: str) -> list[ChunkText]:
        chunks = self._store.unextracted(configuration, COMMIT_CHUNKS + len(self._failed))
        return [chunk for chunk in chunks if chunk.chunk_id not in self._failed][:COMMIT_CHUNKS]

    def _fail(self, outcome: FailedChunk) -> None:
        self._failed[outcome.chunk_id] = outcome.message
        self._run.log(f"chunk {outcome.chunk_id}: {outcome.message}")
        with self._run.item(outcome.chunk_id):
            raise ValueError(outcome.message)

    def _embed(self, model_path: str | None, weight: float) -> None:
        active = existing_generation(self._store)
        total = self._store.count_unembedded_entities(active.model)
        with self._stages.stage("embed", "Embedding entities", weight=weight, total=total, unit="entity") as stage:
            if not total:
                return
            embedder = embedder_of(active, model_path=model_path, waiting=self._store.waiting)
            while batch := self._store.unembedded_entities(active.model, _ENTITIES_AT_ONCE):
                vectors = embedder.embed([name for _, name in batch], tick=self._run.check)
                self._store.set_entity_vectors(
                    active.model,
                    [(entity, name, vector) for (entity, name), vector in zip(batch, vectors, strict=True)],
                )
                self._embedded += len(batch)
                stage.advance(len(batch))


def _shares(extractor: Extractor, chunks: int, *, embed: bool) -> tuple[float, float, float]:
    """What loading, finding and embedding take of the time, before it is known how many entities there are."""
    finding = extractor.chunk_seconds * chunks
    embedding = _SECONDS_PER_ENTITY * _ENTITIES_PER_ROOT * chunks**0.5 if embed else 0.0
    whole = extractor.load_seconds + finding + embedding
    if not whole:
        return 0.0, 0.99, 0.0
    loading, embedding = round(0.99 * extractor.load_seconds / whole, 4), round(0.99 * embedding / whole, 4)
    return loading, round(0.99 - loading - embedding, 4), embedding
