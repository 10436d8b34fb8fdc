"""The ingestion job: files, folders and globs become documents that a search finds.

Owns the progress, the ledger and the result of the job. The work itself is in
`pipeline`, and the document store is the truth for resume: a job that was killed or
cancelled asks it what is missing and does that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from milepost.documents import wording
from milepost.documents.errors import BadDocument, GenerationChanged, VersionVanished
from milepost.documents.formats import MAX_BYTES
from milepost.documents.loader_process import LoaderProcess, LoadLimits
from milepost.documents.loaders.text import is_text_encoding
from milepost.documents.pipeline import Index, drain, index_text, load_document, open_index
from milepost.documents.sources import Source, plan
from milepost.documents.stages import Indexing, TimedStages, said_by, shares
from milepost.documents.store import open_store
from milepost.documents.store.records import Version
from milepost.tracking.run import Run
from milepost.tracking.stages import LiveStage

_LISTED: Final = 1000
_SHOWN: Final = 5
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
    per stage. Raises `NothingIngested` when all documents are bad, or any with `strict`, and `ValueError`
    for a parameter that is out of bounds or not as the index has it.
    """
    if not paths:
        raise ValueError("paths is empty: name files, folders or globs")
    if max_bytes < 1 or not seconds_per_file > 0:
        raise ValueError(f"max_bytes and seconds_per_file must be above 0, not {max_bytes} and {seconds_per_file:g}")
    if encoding is not None and not is_text_encoding(encoding):
        raise ValueError(f"encoding must be one that Python knows, such as latin-1 or cp1252, not {encoding!r}")
    store = open_store(database)
    try:
        store.waiting = said_by(run)
        reopen = partial(open_index, store, model_path=model_path, endpoint=endpoint, waiting=store.waiting)
        index = reopen(model=model, chunk_tokens=chunk_tokens)
        with LoaderProcess(LoadLimits(seconds=seconds_per_file, max_bytes=max_bytes)) as loader:
            return _Ingestion(run, index, loader, encoding, reopen).ingest(paths, key=key, strict=strict)
    finally:
        store.close()


class _Ingestion:
    """The stages of one job and what they have counted. `reopen` gives the index that is active by then."""

    def __init__(
        self, run: Run, index: Index, loader: LoaderProcess, encoding: str | None, reopen: Callable[[], Index]
    ) -> None:
        self._run = run
        self._stages = TimedStages(run)
        self._indexing = Indexing(self._stages, index, lambda version: self._again.append(self._source(version)))
        self._loader = loader
        self._encoding = encoding
        self._reopen = reopen
        self._failed: list[tuple[str, BadDocument]] = []
        self._again: list[Source] = []
        self._sources: dict[str, Source] = {}
        self._warnings: list[dict[str, str]] = []
        self._unchanged = 0

    def ingest(self, paths: list[str], *, key: str | None, strict: bool) -> dict[str, Any]:
        """Run all stages and return the job's result."""
        found = plan(paths, key=key)
        self._sources = {source.document_id: source for source in found.sources}
        for name, bad in found.missing:
            self._fail(name, bad)
        loading, chunking, embedding = shares(self._indexing.index, 0.99, loading=True)
        loaded = self._load(found.sources, loading)
        total = len(found.sources) + len(found.missing)
        if self._failed and (strict or len(self._failed) == total):
            raise NothingIngested(self._complaint(total))
        made = self._indexing
        made.embed(made.chunk(loaded, total=len(loaded), weight=chunking), weight=embedding, published=self._note)
        self._finish()
        self._run.progress(
            message=wording.ingested(
                documents=made.documents, chunks=made.chunks, unchanged=self._unchanged, failed=len(self._failed)
            )
        )
        return {
            "documents": total,
            "ingested": made.documents,
            "unchanged": self._unchanged,
            "failed": [
                {"file": name, "code": bad.code, "message": bad.message} for name, bad in self._failed[:_LISTED]
            ],
            "skipped": found.skipped,
            "chunks": made.chunks,
            **made.counts,
            "warnings": self._warnings[:_LISTED],
            "seconds": self._stages.seconds,
            "model": made.index.generation.model,
            "generation": made.index.generation.number,
            "database": str(made.index.store),
        } | ({"failed_unlisted": more} if (more := len(self._failed) - _LISTED) > 0 else {})

    def _load(self, sources: list[Source], weight: float) -> list[Version]:
        total = sum(source.size for source in sources)
        loaded: list[Version] = []
        with self._stages.stage("load", "Loading", weight=weight, total=total, unit="byte") as stage:
            for source in sources:
                self._run.progress(message=f"Loading {source.path.name}")
                before = stage.done
                version = self._load_one(source, stage)
                stage.advance(max(0, before + source.size - stage.done))  # what was not read of it
                if version is not None:
                    loaded.append(version)
        return loaded

    def _load_one(self, source: Source, stage: LiveStage) -> Version | None:
        steps = load_document(self._indexing.index, source, self._loader, encoding=self._encoding, tick=self._run.check)
        try:
            version = drain(steps, stage.advance)
        except BadDocument as bad:
            self._fail(source.uri, bad)
            return None
        except (GenerationChanged, VersionVanished):
            self._again.append(source)
            return None
        if version is None:
            self._leave(source)
        return version

    def _finish(self) -> None:
        """Do again what another job has overtaken, and clear away what was never finished."""
        with self._stages.stage("persist", "Persisting", weight=0.01, unit="document") as stage:
            for source in self._again:
                self._do_again(source)
                stage.advance(1)
            self._indexing.index.store.prune(older_than=_ABANDONED_SECONDS)

    def _do_again(self, source: Source) -> None:
        for attempt in range(_TRIES):
            index = self._indexing.index = self._reopen()
            try:
                tick = self._run.check
                version = drain(load_document(index, source, self._loader, encoding=self._encoding, tick=tick))
                if version is not None:
                    version = index_text(index, version, tick=tick)
                    self._indexing.count(version)
                    self._note(version)
                else:
                    self._leave(source)
            except BadDocument as bad:
                self._fail(source.uri, bad)
            except (GenerationChanged, VersionVanished):
                if attempt + 1 == _TRIES:
                    raise
                continue
            return

    def _source(self, version: Version) -> Source:
        return self._sources[version.document_id]

    def _note(self, version: Version) -> None:
        """Put a published document into the ledger, with its warnings."""
        source = self._source(version)
        text = self._indexing.index.store.get_text(version.text_id)
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
        shown = [f"{bad.message} ({bad.code})" for _, bad in self._failed[:_SHOWN]]
        if (more := len(self._failed) - _SHOWN) > 0:
            shown.append(f"and {more:,} more")
        return f"{len(self._failed):,} of {wording.counted(total, 'document')} cannot be used: {'; '.join(shown)}"
