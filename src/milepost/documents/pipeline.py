"""The steps from a file to a published document, each a generator that says how far it has come.

Owns what is done in which order and what is not done again. Knows no job: whoever
drives the steps counts what they yield and may stop between any two.

    load_document -> chunk_document -> embed_versions -> publish
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from milepost.documents import identity
from milepost.documents.chunks import CHUNK_TOKENS, Chunk, Segment, chunk_segments, split_segments
from milepost.documents.embed import Embedder, check_model, get_embedder
from milepost.documents.errors import BadDocument, EmptyStore, VersionVanished
from milepost.documents.formats import open_regular
from milepost.documents.loader_process import LoaderProcess
from milepost.documents.loaders import LoadReport, Pieces
from milepost.documents.sources import Source
from milepost.documents.store import DocumentStore
from milepost.documents.store.records import Generation, Text, Version

COMMIT_CHUNKS: Final = 64
"""Vectors that are committed together; a kill repeats at most one such commit."""
_SEGMENTS_AT_ONCE: Final = 8
_CHUNKS_AT_ONCE: Final = 256
_TRIES: Final = 3
Tick = Callable[[], object]
Y = TypeVar("Y")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Index:
    """Where documents go: a store, one of its generations and the embedder of that generation."""

    store: DocumentStore
    generation: Generation
    embedder: Embedder

    @property
    def chunk_tokens(self) -> int:
        """The most word pieces that a chunk may have."""
        return int(self.generation.settings["chunk_tokens"])


def settings_for(
    model: str | None = None, *, chunk_tokens: int | None = None, endpoint: str | None = None
) -> dict[str, Any]:
    """The settings of a generation. Raises `ValueError` for a model or a chunk size that there cannot be."""
    model = "minilm" if model is None else model
    chunk_tokens = CHUNK_TOKENS if chunk_tokens is None else chunk_tokens
    check_model(model)
    if not 16 <= chunk_tokens <= 8192:
        raise ValueError(f"chunk_tokens must be from 16 to 8192, not {chunk_tokens}")
    settings = {**identity.chunk_settings(chunk_tokens), "embedder": model}
    return {**settings, "endpoint": endpoint} if endpoint else settings


def open_index(
    store: DocumentStore,
    *,
    model: str | None = None,
    model_path: str | None = None,
    endpoint: str | None = None,
    chunk_tokens: int | None = None,
    waiting: Callable[[str], object] | None = None,
) -> Index:
    """Open the active generation, or make the first one from what is asked for.

    What is None is taken as the index has it. Raises `ValueError` when the index has documents and was made
    otherwise than asked.
    """
    settings = settings_for(model, chunk_tokens=chunk_tokens, endpoint=endpoint)
    active = store.active_generation()
    if active is None or (_is_empty(store) and (model, chunk_tokens) != (None, None)):
        embedder = get_embedder(settings["embedder"], model_path=model_path, endpoint=endpoint, waiting=waiting)
        active = store.ensure_generation(embedder.model, embedder.dimension, settings)
    for name, made, asked in (
        ("model", active.settings["embedder"], model),
        ("chunk_tokens", active.settings["chunk_tokens"], chunk_tokens),
    ):
        if asked not in (None, made):
            raise ValueError(f"the index was made with {name}={made}, not {asked}: leave {name} out, or run reindex")
    return Index(store, active, embedder_of(active, model_path=model_path, endpoint=endpoint, waiting=waiting))


def existing_generation(store: DocumentStore) -> Generation:
    """The active generation. Raises `EmptyStore` when nothing was ingested yet."""
    active = store.active_generation()
    if active is None or _is_empty(store):
        raise EmptyStore(f"there are no documents in {store} yet: run ingestion first")
    return active


def embedder_of(
    generation: Generation,
    *,
    model_path: str | None = None,
    endpoint: str | None = None,
    patience: float = 600.0,
    waiting: Callable[[str], object] | None = None,
) -> Embedder:
    """The embedder that a generation was made with. Raises `ValueError` when only another model is there."""
    settings = generation.settings
    embedder = get_embedder(
        settings["embedder"],
        model_path=model_path,
        endpoint=endpoint or settings.get("endpoint"),
        dimension=generation.dimension,
        patience=patience,
        waiting=waiting,
    )
    if embedder.model != generation.model:
        raise ValueError(f"the index was made with the model {generation.model}, not {embedder.model}: reindex")
    return embedder


def load_document(
    index: Index, source: Source, loader: LoaderProcess, *, encoding: str | None = None, tick: Tick | None = None
) -> Generator[int, None, Version | None]:
    """Load a file into the store and return the version it will be, or None when it is there unchanged.

    Yields the bytes read of `source.size` as they grow. Raises `BadDocument`, and then
    leaves nothing behind; `GenerationChanged` when the index was switched.
    """
    for _ in range(_TRIES):
        before, content = _read_content(source, loader.limits.max_bytes)
        version = _version(index, source, content, encoding)
        stored = index.store.document(source.document_id, generation=index.generation.number)
        if stored is not None and stored.fingerprint == version.fingerprint:
            return None
        version = index.store.begin_version(version)
        text = index.store.get_text(version.text_id)
        if text is not None and text.complete:
            return version
        try:
            pieces = loader.load(source.path, encoding=encoding, tick=tick)
            yield from _store_text(index.store, version.text_id, pieces, source.size)
        except BadDocument:
            index.store.abandon_version(version.version_id)
            raise
        if _state(source) == before:
            return version
        index.store.abandon_version(version.version_id)
    raise BadDocument("unreadable", f"{source.path.name} changes while it is read")


def chunk_document(index: Index, version: Version) -> Generator[int, None, Version]:
    """Cut a loaded text into chunks and return the version with their number; yields characters done.

    Raises `VersionVanished` when the text is gone.
    """
    if version.chunked:
        return version
    store, embedder = index.store, index.embedder
    text = store.get_text(version.text_id)
    if text is None or not text.complete:
        raise VersionVanished(version.version_id)
    done: list[int] = []
    chunks = chunk_segments(
        store.segments(version.text_id),
        document_id=version.document_id,
        format=text.format,
        tokens=index.chunk_tokens,
        advance=done.append,
    )
    count = truncated = 0
    ready: list[tuple[Chunk, bytes]] = []
    for chunk in chunks:
        ready.append((chunk, identity.vector_key(embedder.model, chunk.text)))
        count += 1
        truncated += embedder.max_tokens is not None and chunk.tokens > embedder.max_tokens
        if len(ready) >= _CHUNKS_AT_ONCE:
            store.add_chunks(version.version_id, ready)
            ready = []
        if done:
            yield done.pop()
    store.add_chunks(version.version_id, ready)
    store.complete_chunks(version.version_id, chunk_count=count, truncated=truncated)
    yield from done
    return replace(version, chunked=True, chunk_count=count, truncated=truncated)


def in_groups(versions: Iterable[Version], chunks: int = COMMIT_CHUNKS) -> Iterator[list[Version]]:
    """Put small documents together until they have about `chunks` chunks, so that batches are full."""
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


def embed_versions(index: Index, versions: Sequence[Version], *, tick: Tick | None = None) -> Iterator[tuple[int, int]]:
    """Make the vectors that are missing and commit them, 64 at a time.

    Yields (chunks done, of these computed); the chunks add up to those of all versions.
    """
    store, embedder = index.store, index.embedder
    ids = [version.version_id for version in versions]
    left = sum(version.chunk_count for version in versions)
    cached = left - store.count_missing(ids)
    yield cached, 0
    left -= cached
    while batch := store.missing_vectors(ids, COMMIT_CHUNKS):
        ready = []
        for start in range(0, len(batch), embedder.batch):
            part = batch[start : start + embedder.batch]
            vectors = embedder.embed([missing.text for missing in part], tick=tick)
            ready += [(missing.key, vector) for missing, vector in zip(part, vectors, strict=True)]
            done = min(left, sum(missing.chunks for missing in part))
            left -= done
            yield done, len(part)
        store.put_vectors(ready)
    yield left, 0  # another job made these meanwhile


def publish(index: Index, version: Version, *, tick: Tick | None = None) -> None:
    """Make a version the document that searches find.

    Raises `VersionVanished` and `GenerationChanged` as the store does.
    """
    while not index.store.publish(version.version_id):
        for _ in embed_versions(index, [version], tick=tick):  # vectors were pruned under it
            pass


def index_text(index: Index, version: Version, *, tick: Tick | None = None) -> Version:
    """Chunk, embed and publish a version whose text is loaded, in one go."""
    version = drain(chunk_document(index, index.store.begin_version(version)))
    for _ in embed_versions(index, [version], tick=tick):
        pass
    publish(index, version, tick=tick)
    return version


def drain(steps: Generator[Y, None, R], each: Callable[[Y], object] | None = None) -> R:
    """Run a step to its end, hand what it yields to `each`, and return what it returns."""
    while True:
        try:
            yielded = next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result
        if each is not None:
            each(yielded)


def _store_text(store: DocumentStore, text_id: str, pieces: Pieces, size: int) -> Generator[int, None, None]:
    """Put the pieces of a load into the store as segments; yields bytes, as far as they can be told."""
    reading = _Reading(pieces)
    seen = characters = position = 0
    ready: list[Segment] = []
    text = Text(text_id, format="text")
    for segment in split_segments(reading):
        ready.append(segment)
        characters += len(segment.text)
        if len(ready) >= _SEGMENTS_AT_ONCE:
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


class _Reading:
    """The (text, page) pairs of a load, its fraction so far, and its report at the end."""

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
    text_id = identity.text_id(source.document_id, content, encoding)
    fingerprint = identity.fingerprint(text_id, identity.chunk_settings(index.chunk_tokens))
    return Version(
        version_id=identity.version_id(index.generation.number, source.document_id, fingerprint),
        generation=index.generation.number,
        document_id=source.document_id,
        uri=source.uri,
        text_id=text_id,
        size=source.size,
        content_hash=content,
        fingerprint=fingerprint,
    )


def _read_content(source: Source, max_bytes: int) -> tuple[tuple[int, ...], str]:
    """The state of a file and its hash; `BadDocument` for what is no file of a right size."""
    open_regular(source.path, max_bytes).close()
    try:
        before = _state(source)
        return before, identity.content_hash(source.path)
    except OSError as error:
        raise BadDocument("unreadable", f"{source.path.name}: {error.strerror or error}") from error


def _state(source: Source) -> tuple[int, ...]:
    try:
        status = os.stat(source.path)
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns)
