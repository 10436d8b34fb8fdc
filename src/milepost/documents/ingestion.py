"""The ingestion job: files, folders and globs become documents that a search finds.

Owns the progress, the ledger and the result of the job. The work itself is in
`pipeline`, and the document store is the truth for resume: a job that was killed or
cancelled asks it what is missing and does that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from milepost.documents import wording
from milepost.documents.errors import BadDocument, GenerationChanged, VersionVanished
from milepost.documents.formats import MAX_BYTES
from milepost.documents.loader_process import LoaderProcess, LoadLimits
from milepost.documents.pipeline import (
    Index,
    chunk_document,
    drain,
    embed_versions,
    in_groups,
    index_text,
    load_document,
    open_index,
    publish,
)
from milepost.documents.sources import Source, plan
from milepost.documents.store import open_store
from milepost.documents.store.records import Version
from milepost.tracking.run import Run
from milepost.tracking.stages import LiveStage

_LISTED: Final = 1000
_ABANDONED_SECONDS: Final = 7 * 86400.0
_TRIES: Final = 3


class NothingIngested(ValueError):
    """No document could be used, or one could not and the job was told to be strict."""


def ingestion(
    run: Run,
    paths: list[str],
    *,
    database: str | None = None,
    model: str | None = None,
    model_path: str | None = None,
    endpoint: str | None = None,
    chunk_tokens: int | None = None,
    key: str | None = None,
    encoding: str | None = None,
    max_bytes: int = MAX_BYTES,
    seconds_per_file: float = 600.0,
    strict: bool = False,
) -> dict[str, Any]:
    """Load, chunk, embed and store documents.

    `paths` are files, folders or globs. A document that is there with the same content
    and settings is left as it is; changed content replaces it in one step. `model` is
    `minilm`, `wordllama`, `hashing` or `http:NAME`, and counts only for a new index.

    The result counts documents (`ingested`, `unchanged`, `failed` with file, code and
    message, `skipped`), `chunks` (`embedded`, `from_cache`, `truncated`) and `seconds`
    per stage. Raises `NothingIngested` when all documents are bad, or any with `strict`.
    """
    limits = LoadLimits(seconds=seconds_per_file, max_bytes=max_bytes)
    store = open_store(database)
    try:
        store.waiting = lambda reason: run.progress(message=reason)
        index = open_index(store, model=model, model_path=model_path, endpoint=endpoint, chunk_tokens=chunk_tokens)
        with LoaderProcess(limits) as loader:
            job = _Ingestion(run, index, loader, encoding=encoding, model_path=model_path, endpoint=endpoint)
            return job.ingest(paths, key=key, strict=strict)
    finally:
        store.close()


class _Ingestion:
    """The stages of one job and what they have counted."""

    def __init__(
        self,
        run: Run,
        index: Index,
        loader: LoaderProcess,
        *,
        encoding: str | None,
        model_path: str | None,
        endpoint: str | None,
    ) -> None:
        self._run = run
        self._index = index
        self._loader = loader
        self._encoding = encoding
        self._model_path = model_path
        self._endpoint = endpoint
        self._failed: list[tuple[str, BadDocument]] = []
        self._again: list[Source] = []
        self._sources: dict[str, Source] = {}
        self._warnings: list[dict[str, str]] = []
        self._seconds: dict[str, float] = {}
        self._ingested = self._unchanged = self._chunks = self._computed = self._truncated = 0

    def ingest(self, paths: list[str], *, key: str | None, strict: bool) -> dict[str, Any]:
        """Run all stages and return the job's result."""
        found = plan(paths, key=key)
        self._sources = {source.document_id: source for source in found.sources}
        for name, bad in found.missing:
            self._fail(name, bad)
        loaded = self._load(found.sources)
        total = len(found.sources) + len(found.missing)
        if self._failed and (strict or len(self._failed) == total):
            raise NothingIngested(self._complaint(total))
        self._embed(self._chunk(loaded))
        self._finish()
        self._run.progress(
            message=wording.ingested(
                documents=self._ingested, chunks=self._chunks, unchanged=self._unchanged, failed=len(self._failed)
            )
        )
        return {
            "documents": total,
            "ingested": self._ingested,
            "unchanged": self._unchanged,
            "failed": [
                {"file": name, "code": bad.code, "message": bad.message} for name, bad in self._failed[:_LISTED]
            ],
            "skipped": found.skipped,
            "chunks": self._chunks,
            "embedded": self._computed,
            "from_cache": self._chunks - self._computed,
            "truncated": self._truncated,
            "warnings": self._warnings[:_LISTED],
            "seconds": {name: round(seconds, 3) for name, seconds in self._seconds.items()},
            "model": self._index.generation.model,
            "generation": self._index.generation.number,
            "database": str(self._index.store),
        } | ({"failed_unlisted": more} if (more := len(self._failed) - _LISTED) > 0 else {})

    def _load(self, sources: list[Source]) -> list[Version]:
        total = sum(source.size for source in sources)
        loaded: list[Version] = []
        with self._timed("load"), self._run.stage("Loading", weight=0.02, total=total, unit="byte") as stage:
            for source in sources:
                self._run.progress(message=f"Loading {source.path.name}")
                read: list[int] = [0]
                version = self._load_one(source, stage, read)
                stage.advance(max(0, source.size - sum(read)))
                if version is not None:
                    loaded.append(version)
        return loaded

    def _load_one(self, source: Source, stage: LiveStage, read: list[int]) -> Version | None:
        def advance(size: int) -> None:
            read.append(size)
            stage.advance(size)

        steps = load_document(self._index, source, self._loader, encoding=self._encoding, tick=self._run.check)
        try:
            version = drain(steps, advance)
        except BadDocument as bad:
            self._fail(source.uri, bad)
            return None
        except (GenerationChanged, VersionVanished):
            self._again.append(source)
            return None
        if version is None:
            self._leave(source)
        return version

    def _chunk(self, loaded: list[Version]) -> list[Version]:
        chunked: list[Version] = []
        total = len(loaded)
        with self._timed("chunk"), self._run.stage("Chunking", weight=0.06, total=total, unit="document") as stage:
            for version in loaded:
                try:
                    chunked.append(drain(chunk_document(self._index, version), lambda _: self._run.check()))
                except (GenerationChanged, VersionVanished):
                    self._again.append(self._sources[version.document_id])
                stage.advance(1)
        return chunked

    def _embed(self, chunked: list[Version]) -> None:
        total = sum(version.chunk_count for version in chunked)
        with self._timed("embed"), self._run.stage("Embedding", weight=0.91, total=total, unit="chunk") as stage:
            for group in in_groups(chunked):
                for done, computed in embed_versions(self._index, group, tick=self._run.check):
                    stage.advance(done)
                    self._computed += computed
                for version in group:
                    self._publish(version)
                self._run.checkpoint({"ingested": self._ingested, "chunks": self._chunks})

    def _publish(self, version: Version) -> None:
        source = self._sources[version.document_id]
        try:
            publish(self._index, version)
        except (GenerationChanged, VersionVanished):
            self._again.append(source)
            return
        self._count(source, version)

    def _finish(self) -> None:
        """Do again what another job has overtaken, and clear away what was never finished."""
        with self._timed("persist"), self._run.stage("Persisting", weight=0.01, unit="document") as stage:
            for source in self._again:
                self._do_again(source)
                stage.advance(1)
            self._index.store.prune(older_than=_ABANDONED_SECONDS)

    def _do_again(self, source: Source) -> None:
        for attempt in range(_TRIES):
            self._index = open_index(self._index.store, model_path=self._model_path, endpoint=self._endpoint)
            try:
                version = drain(load_document(self._index, source, self._loader, encoding=self._encoding))
                if version is not None:
                    self._count(source, index_text(self._index, version))
                else:
                    self._leave(source)
            except BadDocument as bad:
                self._fail(source.uri, bad)
            except (GenerationChanged, VersionVanished):
                if attempt + 1 == _TRIES:
                    raise
                continue
            return

    def _count(self, source: Source, version: Version) -> None:
        self._ingested += 1
        self._chunks += version.chunk_count
        self._truncated += version.truncated
        text = self._index.store.get_text(version.text_id)
        for warning in text.warnings if text is not None else ():
            self._warnings.append({"file": source.uri, "code": warning})
        with self._run.item(source.uri):
            pass

    def _leave(self, source: Source) -> None:
        """Count a document that is there already."""
        self._unchanged += 1
        with self._run.item(source.uri) as entry:
            entry.skip()

    def _fail(self, name: str, bad: BadDocument) -> None:
        self._failed.append((name, bad))
        self._run.log(f"{name}: {bad}")
        with self._run.item(name):
            raise bad

    def _complaint(self, total: int) -> str:
        first = "; ".join(f"{name}: {bad}" for name, bad in self._failed[:5])
        return f"{len(self._failed)} of {total} documents cannot be used: {first}"

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        before = time.monotonic()
        try:
            yield
        finally:
            self._seconds[stage] = time.monotonic() - before
