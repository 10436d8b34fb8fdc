"""What document stores hand out: plain values. Knows no SQL and no parser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from milepost.documents.formats import Format


@dataclass(frozen=True, slots=True)
class Generation:
    """One index of all documents: made by one model with one way of cutting chunks."""

    number: int
    model: str
    dimension: int
    settings: dict[str, Any]
    active: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A document's text as it was loaded, kept in segments; `complete` once all of it is there."""

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
    """A document in the making: invisible until it is published.

    `fingerprint` stands for content and settings; `size` is in bytes; `chunked` once all chunks are there.
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
    """A published document."""

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


@dataclass(frozen=True, slots=True)
class MissingVector:
    """A text that has no vector yet, under its key, and how many chunks wait for it."""

    key: bytes
    text: str
    chunks: int = 1


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found; `score` is the cosine of the angle to the query, 1 at best."""

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


@dataclass(frozen=True, slots=True)
class ChunkText:
    """A chunk's text, for those who read all of them."""

    chunk_id: str
    document_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Mention:
    """An entity's name as it stands in a chunk: `key` is its folded form, `label` the type that was seen."""

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
    """All that was found in one chunk."""

    chunk_id: str
    mentions: tuple[Mention, ...] = ()
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity: its most frequent name and label, and how often and in how many chunks it is mentioned."""

    entity_id: str
    name: str
    label: str
    mentions: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entity that stands in relations with another, with their types and the number of chunks that say so."""

    entity: Entity
    types: tuple[str, ...]
    weight: int
    hops: int = 1


@dataclass(frozen=True, slots=True)
class Community:
    """A group of entities or chunks; `level` 0 is the finest, `parent` the group it is part of one level up."""

    community_id: str
    level: int
    label: str
    size: int
    parent: str | None = None
    members: tuple[str, ...] = field(default=(), repr=False)
