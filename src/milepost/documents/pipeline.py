"""The steps from a file to a published document. Each is a generator that yields its progress.

load_document -> chunk_document -> embed_versions -> publish
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from milepost.documents import document_ids
from milepost.documents.chunking import (
    CHUNK_TOKENS,
    MAX_CHUNK_TOKENS,
    MIN_CHUNK_TOKENS,
    Chunk,
    Segment,
    chunk_segments,
    split_segments,
)
from milepost.documents.configuration import current
from milepost.documents.embed import Embedder, EmbeddingRefusedError, check_model, get_embedder
from milepost.documents.errors import BadDocumentError, EmptyStoreError, VersionVanishedError
from milepost.documents.file_selection import Source
from milepost.documents.file_types import open_regular
from milepost.documents.loader_process import LoaderProcess
from milepost.documents.loaders import LoadReport, Pieces
from milepost.documents.store import DocumentStore
from milepost.documents.store.records import Generation, Text, Version

COMMIT_CHUNKS: Final = 64
"""Vectors committed together. A killed job repeats at most one such commit."""
_SEGMENT_BATCH: Final = 8
_CHUNK_BATCH: Final = 256
_MAX_ATTEMPTS: Final = 3
Tick = Callable[[], object]
Y = TypeVar("Y")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Index:
    """Where documents are stored: a store, one of its generations, and the embedder of that generation."""

    store: DocumentStore
    generation: Generation
    embedder: Embedder

    @property
    def chunk_tokens(self) -> int:
        """The maximum number of word pieces of a chunk."""
        return int(self.generation.settings["chunk_tokens"])


def settings_for(model: str | None = None, *, chunk_tokens: int | None = None) -> dict[str, Any]:
    """Return the settings of a generation. Raises `ValueError` for an invalid model or chunk size.

    The URL of an embedding server is not included: it would let anyone who can write to an index redirect other
    people's searches and the server's key.
    """
    model = current().model or "minilm" if model is None else model
    chunk_tokens = CHUNK_TOKENS if chunk_tokens is None else chunk_tokens
    check_model(model)
    low, high = MIN_CHUNK_TOKENS, MAX_CHUNK_TOKENS
    if not low <= chunk_tokens <= high:
        raise ValueError(f"chunk_tokens must be from {low} to {high}, not {chunk_tokens}")
    return {**document_ids.chunk_settings(chunk_tokens), "embedder": model}


def open_index(
    store: DocumentStore,
    *,
    model: str | None = None,
    model_path: str | None = None,
    endpoint: str | None = None,
    chunk_tokens: int | None = None,
    on_wait: Callable[[str], object] | None = None,
) -> Index:
    """Open the active generation, or create the first one from the given settings.

    Settings of None are taken from the index. Raises `ValueError` if the index has documents and other settings.
    """
    settings = settings_for(model, chunk_tokens=chunk_tokens)
    active = store.active_generation()
    if active is None or (_is_empty(store) and (model, chunk_tokens) != (None, None)):
        embedder = get_embedder(settings["embedder"], model_path=model_path, endpoint=endpoint, on_wait=on_wait)
        active = store.ensure_generation(embedder.model, embedder.dimension, settings)
    for name, made, asked in (
        ("model", active.settings["embedder"], model),
        ("chunk_tokens", active.settings["chunk_tokens"], chunk_tokens),
    ):
        if asked not in (None, made):
            raise ValueError(f"{name}={asked} differs from the index, which uses {made}; omit {name}, or run reindex")
    return Index(store, active, embedder_of(active, model_path=model_path, endpoint=endpoint, on_wait=on_wait))


def existing_generation(store: DocumentStore) -> Generation:
    """Return the active generation. Raises `EmptyStoreError` if nothing was ingested."""
    active = store.active_generation()
    if active is None or _is_empty(store):
        raise EmptyStoreError(f"{store} contains no documents; run ingestion first")
    return active


def embedder_of(
    generation: Generation,
    *,
    model_path: str | None = None,
    endpoint: str | None = None,
    max_wait: float = 600.0,
    on_wait: Callable[[str], object] | None = None,
) -> Embedder:
    """Return the embedder of a generation. Raises `ValueError` if only another model is available."""
    settings = generation.settings
    embedder = get_embedder(
        settings["embedder"],
        model_path=model_path,
        endpoint=endpoint,
        dimension=generation.dimension,
        max_wait=max_wait,
        on_wait=on_wait,
    )
    if embedder.model != generation.model:
        raise ValueError(f"the index uses the model {generation.model}, not {embedder.model}; run reindex")
    return embedder


def load_document(
    index: Index, source: Source, loader: LoaderProcess, *, encoding: str | None = None, tick: Tick | None = None
) -> Generator[int, None, Version | None]:
    """Load a file into the store. Return its new version, or None if the document is unchanged.

    Yields the bytes read of `source.size`. Raises `BadDocumentError` without leaving data behind, and
    `GenerationChangedError` if the active index changed.
    """
    with source.local_path(loader.limits.max_bytes) as path:
        for _ in range(_MAX_ATTEMPTS):
            before, content = _read_content(path, loader.limits.max_bytes)
            version = _version(index, source, content, encoding)
            stored = index.store.document(source.document_id, generation=index.generation.number)
            if stored is not None and stored.fingerprint == version.fingerprint:
                return None
            version = index.store.begin_version(version)
            text = index.store.get_text(version.text_id)
            if text is not None and text.complete:
                return version
            try:
                pieces = loader.load(path, encoding=encoding, tick=tick)
                yield from _store_text(index.store, version.text_id, pieces, source.size)
            except BadDocumentError:
                index.store.abandon_version(version.version_id)
                raise
            if _state(path) == before:
                return version
            index.store.abandon_version(version.version_id)
    raise BadDocumentError("unreadable", f"{source.path.name} changed while it was being read")


def chunk_document(index: Index, version: Version, *, seconds: float | None = None) -> Generator[int, None, Version]:
    """Split a loaded text into chunks, and return the version with their number. Yields the characters processed.

    `seconds` limits the processor time. Raises `VersionVanishedError` if the text is gone, and `BadDocumentError` with
    `chunk_timeout`.
    """
    if version.chunked:
        return version
    store, embedder = index.store, index.embedder
    text = store.get_text(version.text_id)
    if text is None or not text.complete:
        raise VersionVanishedError(version.version_id)
    done: list[int] = []
    chunks = chunk_segments(
        store.segments(version.text_id),
        document_id=version.document_id,
        format=text.format,
        tokens=index.chunk_tokens,
        advance=done.append,
    )
    count = truncated = 0
    started = time.thread_time()
    ready: list[tuple[Chunk, bytes]] = []
    for chunk in chunks:
        ready.append((chunk, document_ids.vector_key(embedder.model, chunk.text)))
        count += 1
        truncated += embedder.max_tokens is not None and chunk.tokens > embedder.max_tokens
        if len(ready) >= _CHUNK_BATCH:
            store.add_chunks(version.version_id, ready)
            ready = []
        if seconds is not None and time.thread_time() - started > seconds:
            raise BadDocumentError("chunk_timeout", f"splitting the text took more than {seconds:g} s")
        if done:
            yield done.pop()
    store.add_chunks(version.version_id, ready)
    store.complete_chunks(version.version_id, chunk_count=count, truncated=truncated)
    yield from done
    return replace(version, chunked=True, chunk_count=count, truncated=truncated)


def in_groups(versions: Iterable[Version], chunks: int = COMMIT_CHUNKS) -> Iterator[list[Version]]:
    """Group small documents until they have about `chunks` chunks, so that batches are full."""
    group: list[Version] = []
    size = 0
    for version in versions:
        group.append(version)
        size += max(version.chunk_count, 1)
        if size >= chunks:
            yield group
            group, size = [], 0
    if group:
        yield group


def embed_versions(
    index: Index, versions: Sequence[Version], *, tick: Tick | None = None
) -> Generator[tuple[int, int], None, dict[str, BadDocumentError]]:
    """Compute the missing vectors and commit them, 64 at a time. Return the refused versions: id -> error.

    Yields (chunks processed, of these computed); the sum of the former is the number of chunks of all versions.
    """
    store, embedder = index.store, index.embedder
    waiting = {version.version_id: version for version in versions}
    refused: dict[str, BadDocumentError] = {}
    left = sum(version.chunk_count for version in versions)
    cached = left - store.count_missing(list(waiting))
    yield cached, 0
    left -= cached
    while waiting and (batch := store.missing_vectors(list(waiting), COMMIT_CHUNKS)):
        ready = []
        bad: dict[bytes, str] = {}
        for start in range(0, len(batch), embedder.batch):
            part = batch[start : start + embedder.batch]
            try:
                vectors = embedder.embed([missing.text for missing in part], tick=tick)
            except EmbeddingRefusedError as error:
                vectors = error.vectors
                bad |= {part[row].key: reason for row, reason in error.refused.items()}
            embedded = [
                (missing, vector) for missing, vector in zip(part, vectors, strict=True) if missing.key not in bad
            ]
            ready += [(missing.key, vector) for missing, vector in embedded]
            done = min(left, sum(missing.chunks for missing, _ in embedded))
            left -= done
            yield done, len(embedded)
        store.put_vectors(ready)
        for version in list(waiting.values()) if bad else ():
            missing_keys = (one.key for one in store.missing_vectors([version.version_id], version.chunk_count))
            if reason := next((bad[key] for key in missing_keys if key in bad), None):
                refused[version.version_id] = BadDocumentError("embedding_refused", reason)
                del waiting[version.version_id]
    yield left, 0  # computed by another job in the meantime, or not needed any more
    return refused


def publish(index: Index, version: Version, *, tick: Tick | None = None) -> None:
    """Make a version the document that searches find.

    Raises `VersionVanishedError`, `GenerationChangedError`, and `BadDocumentError` if a part of it cannot be embedded.
    """
    while not index.store.publish(version.version_id):  # vectors were pruned in the meantime
        if bad := drain(embed_versions(index, [version], tick=tick)):
            raise bad[version.version_id]


def index_text(index: Index, version: Version, *, tick: Tick | None = None) -> Version:
    """Chunk, embed and publish a version whose text is loaded. Raises `BadDocumentError` if that is refused."""
    version = drain(chunk_document(index, index.store.begin_version(version)))
    if bad := drain(embed_versions(index, [version], tick=tick)):
        index.store.abandon_version(version.version_id)
        raise bad[version.version_id]
    publish(index, version, tick=tick)
    return version


def drain(steps: Generator[Y, None, R], each: Callable[[Y], object] | None = None) -> R:
    """Run a step to its end, pass what it yields to `each`, and return its result."""
    while True:
        try:
            yielded = next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result
        if each is not None:
            each(yielded)


def _store_text(store: DocumentStore, text_id: str, pieces: Pieces, size: int) -> Generator[int, None, None]:
    """Store the pieces of a load as segments. Yields bytes, as far as known."""
    reading = _ProgressReader(pieces)
    seen = characters = position = 0
    ready: list[Segment] = []
    text = Text(text_id, format="text")
    for segment in split_segments(reading):
        ready.append(segment)
        characters += len(segment.text)
        if len(ready) >= _SEGMENT_BATCH:
            store.add_segments(text, position, ready)
            position += len(ready)
            ready = []
        seen, before = max(seen, int(size * reading.fraction)), seen
        yield seen - before
    report = reading.report
    store.add_segments(text, position, ready)
    store.complete_text(
        Text(
            text_id, report.format, report.title, characters, report.pages, report.failed_pages, report.warnings,
            complete=True,
        )
    )  # fmt: skip
    yield size - seen


class _ProgressReader:
    """The (text, page) pairs of a load, its progress, and its report at the end."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self.fraction = 0.0
        self.report = LoadReport("text")

    def __iter__(self) -> Iterator[tuple[str, int | None]]:
        try:
            while True:
                try:
                    piece = next(self._pieces)
                except StopIteration as stop:
                    self.report = stop.value
                    return
                self.fraction = piece.done / piece.total if piece.total else 0.0
                yield piece.text, piece.page
        finally:
            self._pieces.close()


def _is_empty(store: DocumentStore) -> bool:
    return next(iter(store.documents()), None) is None


def _version(index: Index, source: Source, content: str, encoding: str | None) -> Version:
    text_id = document_ids.text_id(source.document_id, content, encoding)
    fingerprint = document_ids.fingerprint(text_id, document_ids.chunk_settings(index.chunk_tokens))
    return Version(
        version_id=document_ids.version_id(index.generation.number, source.document_id, fingerprint),
        generation=index.generation.number,
        document_id=source.document_id,
        uri=source.uri,
        text_id=text_id,
        size=source.size,
        content_hash=content,
        fingerprint=fingerprint,
    )


def _read_content(path: Path, max_bytes: int) -> tuple[tuple[int, ...], str]:
    """Return the state of a file and its hash. Raises `BadDocumentError` for one that is not a regular file within the
    limit.
    """
    open_regular(path, max_bytes).close()
    try:
        before = _state(path)
        return before, document_ids.content_hash(path)
    except OSError as error:
        raise BadDocumentError("unreadable", f"{path.name}: {error.strerror or error}") from error


def _state(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns)
