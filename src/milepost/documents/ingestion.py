"""The ingestion job: load files, folders and globs into the document store.

The document store is the source of truth for resuming: an interrupted job asks it what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from milepost.documents import stages
from milepost.documents.configuration import current
from milepost.documents.errors import BadDocumentError, GenerationChangedError, SupersededError, VersionVanishedError
from milepost.documents.file_selection import FileSelection, Source, select_files
from milepost.documents.folder_sync import FolderSync
from milepost.documents.job_params import (
    ChunkTokens,
    Database,
    EmbeddingUrl,
    Model,
    ModelPath,
    document_root_of,
    limits_of,
    owner_of,
)
from milepost.documents.loader_process import LoaderProcess, LoadLimits
from milepost.documents.loaders.text import is_text_encoding
from milepost.documents.pipeline import (
    Index,
    drain,
    in_groups,
    index_text,
    load_document,
    open_index,
)
from milepost.documents.stages import Indexing, TimedStages, log_passed_over, shares, start_run
from milepost.documents.store import open_store
from milepost.documents.store.filters import checked_metadata
from milepost.documents.store.records import Origins, Version
from milepost.plugins import command_line_hints, owned_by
from milepost.run.run import Run
from milepost.run.stages import LiveStage

_MAX_LISTED: Final = 1000
_MAX_SHOWN: Final = 5
_ABANDONED_SECONDS: Final = 7 * 86400.0
_MAX_ATTEMPTS: Final = 3


class NothingIngestedError(ValueError):
    """Raised if no document could be used, or if one could not and the job is strict."""


@owned_by(lambda: current().owner_label)
@command_line_hints(
    ('milepost search "..."', "search the documents"),
    ("milepost run extraction", "extract entities"),
    paths=("paths",),
)
def ingestion(
    run: Run,
    paths: list[str],
    *,
    database: Database = None,
    model: Model = None,
    model_path: ModelPath = None,
    endpoint: EmbeddingUrl = None,
    chunk_tokens: ChunkTokens | None = None,
    key: str | None = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
    encoding: str | None = None,
    max_bytes: int | None = None,
    seconds_per_file: float | None = None,
    strict: bool = False,
    sync: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Load, chunk, embed and store documents.

    `paths` are files, folders or globs. Of the files in folders, `include` and `exclude` are globs of names, or with
    ``/`` of paths below the folder. A document with the same content and settings is left unchanged; changed
    content replaces it in one step. `model` is `minilm`, `wordllama`, `hashing` or `http:NAME`, and applies only to a
    new index. A job submitted over HTTP reads only files below `MILEPOST_DOCUMENTS_ROOT`, and one with an owner only those
    below the owner's folder there. It may lower, but not raise, `max_bytes` and `seconds_per_file`.

    `metadata` (names with text, numbers or booleans) and the labels of the job are recorded with each document, also with
    unchanged ones, and can be searched by. The documents belong to the value of the job's owner label, if the operator has
    set `MILEPOST_DOCUMENTS_OWNER_LABEL`.

    With `sync`, documents below the given folders whose files are gone are removed, and those whose files have another
    name are moved. A path that is missing or unreadable removes nothing, and more than half of the documents of a folder
    are removed only with `force`. The result counts `removed` and `moved`.

    The result counts documents (`ingested`, `unchanged`, `failed` with file, code and message, `skipped`), `chunks`
    (`embedded`, `from_cache`, `truncated`) and `seconds` per stage. Raises `NothingIngestedError` if all documents
    fail, or any with `strict`, and `ValueError` for a parameter that is out of range or differs from the index.
    """
    if not paths:
        raise ValueError("paths must not be empty; name files, folders or globs")
    configuration = current()
    most, longest = limits_of(run, max_bytes, seconds_per_file, configuration)
    owner = owner_of(run, configuration)
    root = document_root_of(run, paths, configuration, owner)
    if encoding is not None and not is_text_encoding(encoding):
        raise ValueError(f"encoding {encoding!r} is unknown; use a Python encoding such as latin-1 or cp1252")
    described = checked_metadata({**run.labels, **(metadata or {})})
    store = open_store(database or configuration.database)
    try:
        start_run(store, run)
        reopen = partial(open_index, store, model_path=model_path, endpoint=endpoint, on_wait=store.on_wait)
        index = reopen(model=model, chunk_tokens=chunk_tokens)
        found = select_files(paths, key=key, include=include or (), exclude=exclude or (), root=root, owner=owner)
        gone = FolderSync(store, found, key=key, owner=owner, force=force, max_bytes=most) if sync else None
        store.origins = Origins({one.document_id: one.folder for one in found.sources}, owner, described)
        with LoaderProcess(LoadLimits(seconds=longest, max_bytes=most)) as loader:
            return _Ingestion(run, index, loader, encoding, reopen, gone).ingest(found, strict=strict)
    finally:
        store.close()


class _Ingestion:
    """The stages of one job and their counts. `reopen` returns the index that is then active."""

    def __init__(
        self,
        run: Run,
        index: Index,
        loader: LoaderProcess,
        encoding: str | None,
        reopen: Callable[[], Index],
        sync: FolderSync | None = None,
    ) -> None:
        self._run = run
        self._stages = TimedStages(run)
        self._indexing = Indexing(
            self._stages, index, lambda version: self._again.append(self._source(version)), self._refuse
        )
        self._loader = loader
        self._encoding = encoding
        self._reopen = reopen
        self._failed: list[tuple[str, BadDocumentError]] = []
        self._again: list[Source] = []
        self._sources: dict[str, Source] = {}
        self._warnings: list[dict[str, str]] = []
        self._unchanged = self._removed = self._moved = 0
        self._unrecorded: set[str] = set()
        self._sync = sync

    def ingest(self, found: FileSelection, *, strict: bool) -> dict[str, Any]:
        """Run all stages and return the job's result."""
        self._sources = {source.document_id: source for source in found.sources}
        store = self._indexing.index.store
        self._unrecorded = store.record_origins(store.origins)
        if self._sync is not None:
            store.moves = self._sync.moves
            if self._sync.skipped:
                self._run.log(f"sync removes nothing: {self._sync.skipped} is missing or unreadable")
                self._warnings.append({"file": self._sync.skipped, "code": "sync_skipped"})
        for name, bad in found.missing:
            self._fail(name, bad)
        total = len(found.sources) + len(found.missing)
        self._index(found.sources, total, strict=strict)
        made = self._indexing
        log_passed_over(self._run, self._unchanged, total, "documents are in the index already")
        log_passed_over(self._run, made.chunks - made.computed, made.chunks, "chunks have their vectors already")
        self._finish()
        self._check_failures(total, strict=strict)
        self._run.progress(
            message=stages.ingested(
                documents=made.documents,
                chunks=made.chunks,
                unchanged=self._unchanged,
                failed=len(self._failed),
                removed=self._removed,
                moved=self._moved,
            )
        )
        return (
            {
                "documents": total,
                "ingested": made.documents,
                "unchanged": self._unchanged,
                "failed": [
                    {"file": name, "code": bad.code, "message": bad.message} for name, bad in self._failed[:_MAX_LISTED]
                ],
                "skipped": found.skipped,
                "chunks": made.chunks,
                **made.counts,
                "warnings": self._warnings[:_MAX_LISTED],
                "seconds": self._stages.seconds,
                "model": made.index.generation.model,
                "generation": made.index.generation.number,
                "database": str(made.index.store),
            }
            | ({} if self._sync is None else {"removed": self._removed, "moved": self._moved})
            | ({"failed_unlisted": more} if (more := len(self._failed) - _MAX_LISTED) > 0 else {})
        )

    def _index(self, sources: list[Source], total: int, *, strict: bool) -> None:
        """Load, chunk, embed and publish documents, a group at a time. The unit of progress is bytes.

        A strict job publishes nothing before all documents are loaded.
        """
        with (
            self._stages.run.stage("Indexing", weight=0.99, total=sum(map(_size, sources)), unit="byte") as stage,
            self._stages.run.stage("Vectors", unit="chunk") as embedding,
        ):
            progress = IndexingProgress(self._indexing.index, stage, embedding)
            prepared = (self._prepare(source, progress) for source in sources)
            versions: Iterable[Version] = (version for version in prepared if version is not None)
            if strict:
                versions = list(versions)
                self._check_failures(total, strict=True)
            for group in in_groups(versions):
                self._embed(group, progress)

    def _prepare(self, source: Source, progress: IndexingProgress) -> Version | None:
        """Load and chunk a document. Return None if there is nothing to embed."""
        self._run.progress(message=f"Loading {source.path.name}")
        progress.begin(_size(source))
        with self._stages.timed("load"):
            version = self._load_one(source, progress.loaded)
        if version is not None:
            self._run.progress(message=f"Chunking {source.path.name}")
            with self._stages.timed("chunk"):
                version = self._indexing.chunk_one(version, seconds=self._loader.limits.seconds)
        progress.chunked(version)
        return version

    def _embed(self, group: list[Version], progress: IndexingProgress) -> None:
        more = f" and {stages.counted(len(group) - 1, 'other document')}" if len(group) > 1 else ""
        self._run.progress(message=f"Embedding {self._source(group[0]).path.name}{more}")
        with self._stages.timed("embed"):
            self._indexing.embed_group(group, advance=progress.embedded, published=self._record)

    def _load_one(self, source: Source, advance: Callable[[int], object]) -> Version | None:
        steps = load_document(self._indexing.index, source, self._loader, encoding=self._encoding, tick=self._run.check)
        try:
            version = drain(steps, advance)
        except BadDocumentError as bad:
            self._fail(source.uri, bad)
            return None
        except (GenerationChangedError, VersionVanishedError):
            self._again.append(source)
            return None
        if version is None:
            self._count_unchanged(source)
        return version

    def _finish(self) -> None:
        """Do again what another job has overtaken, and clear away what was never finished."""
        with self._stages.stage("persist", "Persisting", weight=0.01, unit="document") as stage:
            if self._again:
                self._run.progress(message=f"Indexing {stages.counted(len(self._again), 'document')} again")
            for source in self._again:
                self._redo(source)
                stage.advance(1)
            if self._sync is not None:
                self._removed = self._sync.remove()
            self._indexing.index.store.prune(older_than=_ABANDONED_SECONDS)
            stages.build_approximate_index(self._run, self._indexing.index)

    def _redo(self, source: Source) -> None:
        for attempt in range(_MAX_ATTEMPTS):
            index = self._indexing.index = self._reopen()
            try:
                tick = self._run.check
                version = drain(load_document(index, source, self._loader, encoding=self._encoding, tick=tick))
                if version is not None:
                    version = index_text(index, version, tick=tick)
                    self._indexing.count(version)
                    self._record(version)
                else:
                    self._count_unchanged(source)
            except BadDocumentError as bad:
                self._fail(source.uri, bad)
            except SupersededError:  # what the later run has read is newer than what this one was asked for
                self._count_unchanged(source)
            except (GenerationChangedError, VersionVanishedError):
                if attempt + 1 == _MAX_ATTEMPTS:
                    raise
                continue
            return

    def _refuse(self, version: Version, bad: BadDocumentError) -> None:
        self._indexing.index.store.abandon_version(version.version_id)
        self._fail(self._source(version).uri, bad)

    def _check_failures(self, total: int, *, strict: bool) -> None:
        """Raise `NothingIngestedError` if all documents failed, or any in a strict job."""
        if self._failed and (strict or len(self._failed) == total):
            raise NothingIngestedError(self._complaint(total))

    def _source(self, version: Version) -> Source:
        return self._sources[version.document_id]

    def _record(self, version: Version) -> None:
        """Put a published document into the ledger, with its warnings."""
        source = self._source(version)
        self._moved += self._sync is not None and version.document_id in self._sync.moves
        text = self._indexing.index.store.get_text(version.text_id)
        for warning in text.warnings if text is not None else ():
            self._warnings.append({"file": source.uri, "code": warning})
        with self._run.item(source.uri):
            pass

    def _count_unchanged(self, source: Source) -> None:
        """Count an unchanged document. One that another job has published since the start gets this job's metadata too."""
        self._unchanged += 1
        if source.document_id in self._unrecorded:
            store = self._indexing.index.store
            store.record_origins(store.origins.of(source.document_id))
        with self._run.item(source.uri) as entry:
            entry.skip()

    def _fail(self, name: str, bad: BadDocumentError) -> None:
        self._failed.append((name, bad))
        self._run.log(f"{name}: {bad}")
        with self._run.item(name):
            raise bad

    def _complaint(self, total: int) -> str:
        shown = [f"{bad.message} ({bad.code})" for _, bad in self._failed[:_MAX_SHOWN]]
        if (more := len(self._failed) - _MAX_SHOWN) > 0:
            shown.append(f"and {more:,} more")
        return f"{len(self._failed):,} of {stages.counted(total, 'document')} cannot be used: {'; '.join(shown)}"


def _size(source: Source) -> int:
    """Return the share of a file in the progress: its bytes, at least 1."""
    return max(1, source.size)


class IndexingProgress:
    """Advances a stage of bytes, and one that counts chunks, while files are indexed in groups.

    Each byte counts as loaded, chunked and embedded by the share of time.
    """

    def __init__(self, index: Index, stage: LiveStage, embedding: LiveStage) -> None:
        self._loading, _, self._embedding = shares(index, 1.0, loading=True)
        self._stage = stage
        self._chunks = embedding
        self._size = self._bytes_loaded = 0
        self._group_bytes = 0.0  # of files that wait for their vectors
        self._group_chunks = 0
        self._exact = 0.0

    def begin(self, size: int) -> None:
        """Begin a file of `size` bytes."""
        self._size, self._bytes_loaded = size, 0

    def loaded(self, count: int) -> None:
        """Count bytes of the file as read."""
        count = min(count, self._size - self._bytes_loaded)
        self._bytes_loaded += count
        self._advance(count * self._loading)

    def chunked(self, version: Version | None) -> None:
        """Count the file as chunked, or as done if there is no version to embed."""
        waiting = self._size * self._embedding if version is not None and version.chunk_count else 0.0
        if version is not None and version.chunk_count:
            self._group_bytes += waiting
            self._group_chunks += version.chunk_count
            self._chunks.total = (self._chunks.total or 0) + version.chunk_count
        self._advance(self._size - self._bytes_loaded * self._loading - waiting)

    def embedded(self, chunks: int) -> None:
        """Count chunks of the waiting files as embedded."""
        part = self._group_bytes * min(1.0, chunks / self._group_chunks) if self._group_chunks else 0.0
        self._group_bytes -= part
        self._group_chunks = max(0, self._group_chunks - chunks)
        self._chunks.advance(chunks)
        self._advance(part)

    def _advance(self, count: float) -> None:
        """Advance by whole bytes, and keep the rest."""
        self._exact += count
        self._stage.advance(max(0, round(self._exact) - int(self._stage.done)))
