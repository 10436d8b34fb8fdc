"""Helpers and base class of the document store tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from milepost.documents import document_ids
from milepost.documents.chunking import chunk_segments, split_segments
from milepost.documents.embed import HashingEmbedder
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Generation, Mention, Text, Version

EMBEDDER = HashingEmbedder(64)
SETTINGS = {"chunk_tokens": 64, "chunker": 1, "embedder": "hashing:64"}


def begin(store: DocumentStore, name: str, content: str, generation: Generation) -> Version:
    """Load and chunk a document, without its vectors."""
    document = document_ids.document_id(name)
    text_id = document_ids.text_id(document, content, None)
    print_of = document_ids.fingerprint(text_id, SETTINGS)
    version = store.begin_version(
        Version(
            document_ids.version_id(generation.number, document, print_of), generation.number, document, name, text_id,
            len(content), document_ids.vector_key("", content).hex(), print_of,
        )
    )  # fmt: skip
    text = Text(text_id, "text")
    store.add_segments(text, 0, list(split_segments([(content, 1)])))
    store.complete_text(replace(text, title=name, characters=len(content), warnings=("encoding_guessed",)))
    chunks = list(chunk_segments(store.segments(text_id), document_id=document, format="text", tokens=64))
    store.add_chunks(
        version.version_id, [(chunk, document_ids.vector_key(EMBEDDER.model, chunk.text)) for chunk in chunks]
    )
    store.complete_chunks(version.version_id, chunk_count=len(chunks), truncated=0)
    return replace(version, chunked=True, chunk_count=len(chunks))


def embed(store: DocumentStore, version: Version) -> int:
    missing = store.missing_vectors([version.version_id], 100_000)
    vectors = EMBEDDER.embed([one.text for one in missing])
    store.put_vectors([(one.key, vector) for one, vector in zip(missing, vectors, strict=True)])
    return len(missing)


def bring_in(store: DocumentStore, name: str, content: str, generation: Generation | None = None) -> Version:
    version = begin(store, name, content, generation or first(store))
    embed(store, version)
    assert store.publish(version.version_id)
    return version


def first(store: DocumentStore) -> Generation:
    return store.ensure_generation(EMBEDDER.model, EMBEDDER.dimension, SETTINGS)


def ask(store: DocumentStore, query: str, k: int = 3) -> list[str]:
    return [hit.text for hit in store.nearest(EMBEDDER.embed([query])[0], k)]


def mention(name: str, label: str = "PERSON", count: int = 1) -> Mention:
    return Mention(name.casefold(), name, label, count)


class StoreTests:
    """Tests of one store, named by the fixture `database`."""

    @pytest.fixture
    def database(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def store(self, database: str) -> Iterator[DocumentStore]:
        store = open_store(database)
        yield store
        store.close()
