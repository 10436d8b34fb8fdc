"""The reindex job: every document is cut and embedded anew, beside the index that is searched.

Owns the progress and the result of the job. The active generation stays whole until one
step switches to the new one; a job that was killed or cancelled finds what it had made.
"""

from __future__ import annotations

from typing import Any, Final

from milepost.documents import identity, wording
from milepost.documents.embed import get_embedder
from milepost.documents.errors import GenerationChanged
from milepost.documents.pipeline import Index, existing_generation, index_text, settings_for
from milepost.documents.stages import Indexing, TimedStages, said_by, shares
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Generation, StoredDocument, Version
from milepost.tracking.run import Run

_ROUNDS: Final = 20
_ABANDONED_SECONDS: Final = 7 * 86400.0


def reindex(
    run: Run,
    *,
    database: str | None = None,
    model: str | None = None,
    model_path: str | None = None,
    endpoint: str | None = None,
    chunk_tokens: int | None = None,
    discard: bool = False,
) -> dict[str, Any]:
    """Make the index anew with another model or chunk size, and switch to it when it is whole.

    What is None stays as it is; without any difference there is nothing to do. Texts
    come from the store, so the files need not be there. With `discard` nothing is made: half-made
    generations are dropped. The result counts `documents`, `chunks` (`embedded`, `from_cache`,
    `truncated`) and `seconds`. Raises `EmptyStore` when nothing was ingested yet, `GenerationChanged`
    when another reindex has switched the index meanwhile.
    """
    store = open_store(database)
    try:
        store.waiting = said_by(run)
        active = existing_generation(store)
        if discard:
            return _discard(run, store, active)
        settings = settings_for(
            model or active.settings["embedder"],
            chunk_tokens=int(active.settings["chunk_tokens"]) if chunk_tokens is None else chunk_tokens,
            endpoint=endpoint or (active.settings.get("endpoint") if model is None else None),
        )
        embedder = get_embedder(
            settings["embedder"], model_path=model_path, endpoint=settings.get("endpoint"), waiting=store.waiting
        )
        if settings == active.settings and embedder.model == active.model:
            return _result(run, store, active, changed=False)
        if embedder.model == active.model and embedder.dimension != active.dimension:
            # Vectors are kept by the name of their model: those of before would be taken for its.
            had = f"{embedder.dimension} dimensions and had {active.dimension} when the index was made"
            raise ValueError(f"the model {active.model} has {had}: give the other model another name")
        generation = store.begin_generation(embedder.model, embedder.dimension, settings)
        try:
            return _Reindex(run, Index(store, generation, embedder)).make()
        except GenerationChanged:
            raise GenerationChanged(
                "another reindex was faster: it has switched the index, and dropped what this one had made; "
                "run this one again if it is still wanted"
            ) from None
    finally:
        store.close()


class _Reindex:
    """The stages of one job and what they have counted."""

    def __init__(self, run: Run, index: Index) -> None:
        self._run = run
        self._stages = TimedStages(run)
        self._index = index
        self._store = index.store
        # What was deleted or replaced in the meantime is left to the switch, which looks again.
        self._indexing = Indexing(self._stages, index, lambda version: index.store.abandon_version(version.version_id))

    def make(self) -> dict[str, Any]:
        """Run all stages and return the job's result."""
        with self._stages.stage("plan", "Planning", weight=0.01, unit="document"):
            documents = self._store.unindexed(self._index.generation.number)
        made = self._indexing
        _, chunking, embedding = shares(self._index, 0.97)
        versions = made.chunk(map(self._version, documents), total=len(documents), weight=chunking)
        made.embed(versions, weight=embedding, published=lambda version: None)
        with self._stages.stage("switch", "Switching", weight=0.02, unit="document") as stage:
            for _ in range(_ROUNDS):
                if self._store.activate(self._index.generation.number):
                    break
                # Documents that were ingested or changed in the meantime.
                for document in self._store.unindexed(self._index.generation.number):
                    made.count(index_text(self._index, self._version(document), tick=self._run.check))
                    stage.advance(1)
            else:
                raise RuntimeError("documents change faster than they can be indexed; try again later")
            self._store.prune(older_than=_ABANDONED_SECONDS)
        return {
            **_result(self._run, self._store, self._index.generation, changed=True),
            "chunks_made": made.chunks,
            **made.counts,
            "seconds": self._stages.seconds,
        }

    def _version(self, document: StoredDocument) -> Version:
        generation = self._index.generation.number
        print_of = identity.fingerprint(document.text_id, identity.chunk_settings(self._index.chunk_tokens))
        return self._store.begin_version(
            Version(
                identity.version_id(generation, document.document_id, print_of),
                generation,
                document.document_id,
                document.uri,
                document.text_id,
                document.size,
                document.content_hash,
                print_of,
            )
        )


def _discard(run: Run, store: DocumentStore, active: Generation) -> dict[str, Any]:
    dropped = [generation.number for generation in store.generations() if not generation.active]
    for number in dropped:
        store.drop_generation(number)
    result = {**_result(run, store, active, changed=False), "dropped": dropped}
    run.progress(message=wording.dropped(len(dropped)))
    return result


def _result(run: Run, store: DocumentStore, generation: Generation, *, changed: bool) -> dict[str, Any]:
    counts = store.counts()
    said = wording.reindexed(changed=changed, documents=counts["documents"], chunks=counts["chunks"])
    run.progress(message=said)
    return {
        "changed": changed,
        "generation": generation.number,
        "model": generation.model,
        "chunk_tokens": generation.settings["chunk_tokens"],
        "documents": counts["documents"],
        "chunks": counts["chunks"],
        "database": str(store),
    }
