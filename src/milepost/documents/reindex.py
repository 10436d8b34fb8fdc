"""The reindex job: build a new index beside the active one, and switch to it in one step.

An interrupted job continues with what it had built.
"""

from __future__ import annotations

from typing import Any, Final

from milepost.documents import document_ids, stages
from milepost.documents.configuration import current
from milepost.documents.embed import get_embedder
from milepost.documents.errors import BadDocumentError, GenerationChangedError
from milepost.documents.job_params import ChunkTokens, Database, EmbeddingUrl, Model, ModelPath
from milepost.documents.pipeline import Index, existing_generation, index_text, settings_for
from milepost.documents.stages import Indexing, TimedStages, log_passed_over, shares, start_run
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Generation, StoredDocument, Version
from milepost.plugins import command_line_hints
from milepost.run.run import Run

_ROUNDS: Final = 20
_ABANDONED_SECONDS: Final = 7 * 86400.0


@command_line_hints(('milepost search "..."', "search the documents"))
def reindex(
    run: Run,
    *,
    database: Database = None,
    model: Model = None,
    model_path: ModelPath = None,
    endpoint: EmbeddingUrl = None,
    chunk_tokens: ChunkTokens | None = None,
    discard: bool = False,
) -> dict[str, Any]:
    """Rebuild the index with another model or chunk size, and switch to it when it is complete.

    Values of None stay as they are; without any difference there is nothing to do. Texts come from the store, so the
    files are not needed. With `discard` unfinished generations are dropped instead. The result has `documents`,
    `chunks` (`embedded`, `from_cache`, `truncated`) and `seconds`. Raises `EmptyStoreError` if nothing was ingested,
    and `GenerationChangedError` if another reindex has switched the index.
    """
    store = open_store(database or current().database)
    try:
        start_run(store, run)
        active = existing_generation(store)
        if discard:
            return _discard(run, store, active)
        settings = settings_for(
            model or active.settings["embedder"],
            chunk_tokens=int(active.settings["chunk_tokens"]) if chunk_tokens is None else chunk_tokens,
        )
        embedder = get_embedder(settings["embedder"], model_path=model_path, endpoint=endpoint, on_wait=store.on_wait)
        if settings == active.settings and embedder.model == active.model:
            run.log("the active index has this model and chunk size already; all documents are passed over")
            return _result(run, store, active, changed=False)
        if embedder.model == active.model and embedder.dimension != active.dimension:
            # Vectors are stored by model name, so the old ones would be used for the new model.
            had = f"{embedder.dimension} dimensions and had {active.dimension} when the index was made"
            raise ValueError(f"the model {active.model} has {had}; use another name for the new model")
        generation = store.begin_generation(embedder.model, embedder.dimension, settings)
        try:
            return _Reindex(run, Index(store, generation, embedder)).make()
        except GenerationChangedError:
            raise GenerationChangedError(
                "another reindex has switched the index and dropped the one of this job; "
                "run this job again if it is still needed"
            ) from None
    finally:
        store.close()


class _Reindex:
    """The stages of one job and their counts."""

    def __init__(self, run: Run, index: Index) -> None:
        self._run = run
        self._stages = TimedStages(run)
        self._index = index
        self._store = index.store
        # Documents deleted or replaced in the meantime are checked again by the switch.
        self._indexing = Indexing(
            self._stages, index, lambda version: index.store.abandon_version(version.version_id), _refuse
        )

    def make(self) -> dict[str, Any]:
        """Run all stages and return the job's result."""
        with self._stages.stage("plan", "Planning", weight=0.01, unit="document"):
            documents = self._store.unindexed(self._index.generation.number)
            total = self._store.counts()["documents"]
            log_passed_over(self._run, total - len(documents), total, "documents are in the new index already")
        made = self._indexing
        _, chunking, embedding = shares(self._index, 0.97)
        versions = made.chunk(map(self._version, documents), total=len(documents), weight=chunking)
        made.embed(versions, weight=embedding, published=lambda version: None)
        stages.build_approximate_index(self._run, self._index)
        with self._stages.stage("switch", "Switching", weight=0.02, unit="document") as stage:
            for _ in range(_ROUNDS):
                if self._store.activate(self._index.generation.number):
                    break
                # Documents ingested or changed in the meantime.
                for document in self._store.unindexed(self._index.generation.number):
                    made.count(index_text(self._index, self._version(document), tick=self._run.check))
                    stage.advance(1)
            else:
                raise RuntimeError("documents changed faster than they could be indexed; try again later")
            self._store.prune(older_than=_ABANDONED_SECONDS)
        return {
            **_result(self._run, self._store, self._index.generation, changed=True),
            "chunks_made": made.chunks,
            **made.counts,
            "seconds": self._stages.seconds,
        }

    def _version(self, document: StoredDocument) -> Version:
        generation = self._index.generation.number
        print_of = document_ids.fingerprint(document.text_id, document_ids.chunk_settings(self._index.chunk_tokens))
        return self._store.begin_version(
            Version(
                document_ids.version_id(generation, document.document_id, print_of),
                generation,
                document.document_id,
                document.uri,
                document.text_id,
                document.size,
                document.content_hash,
                print_of,
            )
        )


def _refuse(version: Version, bad: BadDocumentError) -> None:
    """Fail the job, because an index without one of the documents must not replace the active one."""
    raise BadDocumentError(bad.code, f"{version.uri} cannot be part of the new index: {bad.message}") from bad


def _discard(run: Run, store: DocumentStore, active: Generation) -> dict[str, Any]:
    dropped = [generation.number for generation in store.generations() if not generation.active]
    for number in dropped:
        store.drop_generation(number)
    result = {**_result(run, store, active, changed=False), "dropped": dropped}
    run.progress(message=stages.dropped(len(dropped)))
    return result


def _result(run: Run, store: DocumentStore, generation: Generation, *, changed: bool) -> dict[str, Any]:
    counts = store.counts()
    summary = stages.reindexed(changed=changed, documents=counts["documents"], chunks=counts["chunks"])
    run.progress(message=summary)
    return {
        "changed": changed,
        "generation": generation.number,
        "model": generation.model,
        "chunk_tokens": generation.settings["chunk_tokens"],
        "documents": counts["documents"],
        "chunks": counts["chunks"],
        "database": str(store),
    }
