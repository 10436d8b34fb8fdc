"""The values that document stores return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from milepost.documents.file_types import Format


@dataclass(frozen=True, slots=True)
class Generation:
    """One index of all documents, made with one model and one way of splitting text."""

    number: int
    model: str
    dimension: int
    settings: dict[str, Any]
    active: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A document's text in segments. `complete` is set when all of it is stored."""

    text_id: str
    format: Format
    title: str = ""
    characters: int = 0
    pages: int | None = None
    failed_pages: int = 0
    warnings: tuple[str, ...] = ()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """A document being prepared, invisible until published.

    `fingerprint` identifies content and settings; `size` is in bytes; `chunked` is set when all chunks are stored.
    """

    version_id: str
    generation: int
    document_id: str
    uri: str
    text_id: str
    size: int
    content_hash: str
    fingerprint: str
    chunked: bool = False
    chunk_count: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A published document. `root` is the URI of the folder that was ingested, and `owner` the value of the owner label;
    both may be empty.
    """

    document_id: str
    uri: str
    title: str
    format: Format
    size: int
    content_hash: str
    fingerprint: str
    text_id: str
    version_id: str
    characters: int
    pages: int | None
    failed_pages: int
    warnings: tuple[str, ...]
    chunk_count: int
    truncated: int
    ingested_at: str
    root: str = ""
    owner: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MissingVector:
    """A text without a vector, its vector key, and the number of chunks that need it."""

    key: bytes
    text: str
    chunks: int = 1


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result.

    `score` is at most 1: the cosine similarity to the query, the share of the query's words, or their weighted mean,
    depending on the mode of the search; or the relevance that a reranking server has given. `before` and `after` are the
    texts of the chunks around it, as many as the search was asked for.
    """

    score: float
    chunk_id: str
    document_id: str
    uri: str
    title: str
    heading: str
    page: int | None
    start: int
    stop: int
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkText:
    """A chunk's text."""

    chunk_id: str
    document_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Mention:
    """An entity's name in a chunk: `key` is its normalised form, `label` its type."""

    key: str
    name: str
    label: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation between two entities of a chunk, by their keys."""

    source: str
    target: str
    type: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Extraction:
    """Everything found in one chunk."""

    chunk_id: str
    mentions: tuple[Mention, ...] = ()
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True, slots=True)
class Origins:
    """Where documents come from: the URI of the folder of each, by document id, and what they have in common."""

    roots: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def of(self, document_id: str) -> Origins:
        """Return the origins of one of the documents."""
        return replace(self, roots={document_id: self.roots[document_id]})


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity: its most frequent name and label, and its numbers of mentions and chunks."""

    entity_id: str
    name: str
    label: str
    mentions: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entity related to another, with the types of their relations and the number of chunks."""

    entity: Entity
    types: tuple[str, ...]
    weight: int
    hops: int = 1


@dataclass(frozen=True, slots=True)
class Community:
    """A group of entities or chunks. `level` 0 is the finest, and `parent` is its group one level up."""

    community_id: str
    level: int
    label: str
    size: int
    parent: str | None = None
    members: tuple[str, ...] = field(default=(), repr=False)
