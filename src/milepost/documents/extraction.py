"""The extraction job: find entities and their relations in chunks.

Results and the mark that a chunk is done are written together, so an interrupted job resumes, and a second run finds
nothing to do.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from milepost.documents import stages
from milepost.documents.configuration import current
from milepost.documents.extract import Extractor, FailedChunk, get_extractor
from milepost.documents.job_params import Database, EntityRulesFile, LlmModel, LlmUrl, ModelPath
from milepost.documents.pipeline import embedder_of, existing_generation
from milepost.documents.stages import TimedStages, log_passed_over, report_waits, start_run
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import ChunkText, Extraction
from milepost.plugins import command_line_hints
from milepost.run.run import Run

COMMIT_CHUNKS: Final = 64
_ENTITY_BATCH: Final = 64
_MAX_LISTED: Final = 1000
_HOPELESS: Final = 20
"""Failures before the first success that end the job."""
_SECONDS_PER_ENTITY: Final = 0.0034
_ENTITIES_PER_ROOT: Final = 37
"""Measured: 105 chunks have 378 entities, 2,518 have 1,114, because chunks share entities."""


class NothingExtractedError(ValueError):
    """Raised if no chunk could be extracted."""


@command_line_hints(
    ("milepost entities", "list the entities"),
    ("milepost neighbours NAME", "list entities related to one"),
    ("milepost run clustering", "find communities of entities"),
)
def extraction(
    run: Run,
    *,
    database: Database = None,
    extractor: Literal["auto", "spacy", "rules", "llm"] = "auto",
    endpoint: LlmUrl = None,
    llm_model: LlmModel = None,
    entity_types: list[str] | None = None,
    relation_types: list[str] | None = None,
    rules: EntityRulesFile = None,
    embed: bool = True,
    model_path: ModelPath = None,
) -> dict[str, Any]:
    """Find entities and relations in every chunk that was not extracted with this configuration yet.

    `endpoint`, `llm_model`, and the only types that the model may use, `entity_types` and `relation_types`, belong to
    the extractor `llm`. `rules` is a TOML file with names, patterns and names to ignore. With `embed` the names of
    entities are embedded as well.

    The result has `chunks` (of these `extracted` now, and `failed_chunks` with messages), `entities`, `mentions`,
    `relations` and `seconds`. Raises `EmptyStoreError` if nothing was ingested, and `NothingExtractedError` if every
    chunk failed, or each of the first 20.
    """
    finder = get_extractor(
        extractor,
        endpoint=endpoint,
        llm_model=llm_model,
        entity_types=entity_types or (),
        relation_types=relation_types or (),
        rules=rules,
        on_wait=report_waits(run),
    )
    store = open_store(database or current().database)
    try:
        start_run(store, run)
        existing_generation(store)
        return _Extraction(run, store, finder).extract(embed=embed, model_path=model_path)
    finally:
        finder.close()
        store.close()


class _Extraction:
    """The stages of one job and their counts."""

    def __init__(self, run: Run, store: DocumentStore, extractor: Extractor) -> None:
        self._run = run
        self._store = store
        self._extractor = extractor
        self._extracted = self._empty = self._embedded = 0
        self._failed: dict[str, str] = {}
        self._stages = TimedStages(run)

    def extract(self, *, embed: bool, model_path: str | None) -> dict[str, Any]:
        """Run all stages and return the job's result."""
        chunks = self._store.counts()["chunks"]
        loading, finding, embedding = _shares(self._extractor, chunks, embed=embed)
        with self._stages.stage("load", "Loading the model", weight=loading, unit="model"):
            configuration = self._extractor.configuration
        self._find(configuration, finding, chunks)
        with self._stages.stage("persist", "Counting", weight=0.01, unit="entity"):
            self._store.recount_entities()
            counts = self._store.counts()
        if embed:
            self._embed(model_path, embedding, counts["entities"])
        unchanged = counts["chunks"] - self._extracted - len(self._failed)
        self._run.progress(
            message=stages.extracted(
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
                {"chunk": chunk_id, "message": message}
                for chunk_id, message in list(self._failed.items())[:_MAX_LISTED]
            ],
            "entities": counts["entities"],
            "mentions": counts["mentions"],
            "relations": counts["relations"],
            "entities_embedded": self._embedded,
            "extractor": configuration,
            "warnings": self._warnings(),
            "seconds": self._stages.seconds,
            "database": str(self._store),
        } | ({"failed_unlisted": more} if (more := len(self._failed) - _MAX_LISTED) > 0 else {})

    def _find(self, configuration: str, weight: float, chunks: int) -> None:
        total = self._store.count_unextracted(configuration)
        log_passed_over(self._run, chunks - total, chunks, "chunks are extracted already")
        with self._stages.stage("extract", "Extracting", weight=weight, total=total, unit="chunk") as stage:
            while batch := self._next_batch(configuration):
                found: list[Extraction] = []
                for outcome in self._extractor.extract(batch, tick=self._run.check):
                    if isinstance(outcome, FailedChunk):
                        self._fail(outcome)
                        if total == chunks and not found and not self._extracted and len(self._failed) == _HOPELESS:
                            raise NothingExtractedError(
                                f"each of the first {_HOPELESS} chunks failed: {outcome.message}"
                            )
                    else:
                        found.append(outcome)
                    stage.advance(1)
                self._store.save_extractions(configuration, found)
                self._extracted += len(found)
                self._empty += sum(not extraction.mentions for extraction in found)
        if self._failed and not self._extracted and len(self._failed) == self._store.counts()["chunks"]:
            first = next(iter(self._failed.values()))
            raise NothingExtractedError(f"all {len(self._failed)} chunks failed: {first}")

    def _warnings(self) -> list[str]:
        """Return the warnings of the extractor, and one if more than half of the chunks gave nothing."""
        if self._empty * 2 <= self._extracted:
            return list(self._extractor.warnings)
        self._run.log(f"no entity was found in {self._empty:,} of {self._extracted:,} chunks", "warning")
        return [*self._extractor.warnings, "mostly_without_entities"]

    def _next_batch(self, configuration: str) -> list[ChunkText]:
        chunks = self._store.unextracted(configuration, COMMIT_CHUNKS + len(self._failed))
        return [chunk for chunk in chunks if chunk.chunk_id not in self._failed][:COMMIT_CHUNKS]

    def _fail(self, outcome: FailedChunk) -> None:
        self._failed[outcome.chunk_id] = outcome.message
        self._run.log(f"chunk {outcome.chunk_id}: {outcome.message}")
        with self._run.item(outcome.chunk_id):
            raise ValueError(outcome.message)

    def _embed(self, model_path: str | None, weight: float, entities: int) -> None:
        active = existing_generation(self._store)
        total = self._store.count_unembedded_entities(active.model)
        log_passed_over(self._run, entities - total, entities, "entities have their vectors already")
        with self._stages.stage("embed", "Embedding entities", weight=weight, total=total, unit="entity") as stage:
            if not total:
                return
            embedder = embedder_of(active, model_path=model_path, on_wait=self._store.on_wait)
            while batch := self._store.unembedded_entities(active.model, _ENTITY_BATCH):
                vectors = embedder.embed([name for _, name in batch], tick=self._run.check)
                self._store.set_entity_vectors(
                    active.model,
                    [(entity, name, vector) for (entity, name), vector in zip(batch, vectors, strict=True)],
                )
                self._embedded += len(batch)
                stage.advance(len(batch))


def _shares(extractor: Extractor, chunks: int, *, embed: bool) -> tuple[float, float, float]:
    """Return the weights of loading, finding and embedding before the number of entities is known."""
    finding = extractor.chunk_seconds * chunks
    embedding = _SECONDS_PER_ENTITY * _ENTITIES_PER_ROOT * chunks**0.5 if embed else 0.0
    whole = extractor.load_seconds + finding + embedding
    if not whole:
        return 0.0, 0.99, 0.0
    loading, embedding = round(0.99 * extractor.load_seconds / whole, 4), round(0.99 * embedding / whole, 4)
    return loading, round(0.99 - loading - embedding, 4), embedding
