"""The tables of a document store, and the version of their layout.

    generations 1--* documents *--1 versions 1--* chunks *--1 vectors
                                    versions *--1 texts 1--* segments
    chunks 1--* mentions *--1 entities,  chunks 1--* relations,  chunks 1--* extractions
    clusterings 1--* communities 1--* members
    documents 1--* index_entries *--1 chunks,  index_entries 1--1 words

`index_entries` are the chunks of published documents, numbered in the order of their publication, so that a search reads
only what is new.

A document becomes visible, or is replaced, by one row of `documents`; a generation by the one row of
`active_generation`.
"""

from __future__ import annotations

from typing import Final

from milepost.documents.store.database import Database, Transaction, add_entries

LAYOUT: Final = 2

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS generations (
    generation INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    settings TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS active_generation (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    generation INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS texts (
    text_id TEXT PRIMARY KEY,
    format TEXT NOT NULL,
    title TEXT NOT NULL,
    characters INTEGER NOT NULL,
    pages INTEGER,
    failed_pages INTEGER NOT NULL,
    warnings TEXT NOT NULL,
    complete INTEGER NOT NULL,
    begun_at DOUBLE PRECISION NOT NULL
);
CREATE TABLE IF NOT EXISTS segments (
    text_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    start INTEGER NOT NULL,
    text TEXT NOT NULL,
    pages TEXT NOT NULL,
    PRIMARY KEY (text_id, position)
);
CREATE TABLE IF NOT EXISTS versions (
    version_id TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    document_id TEXT NOT NULL,
    uri TEXT NOT NULL,
    text_id TEXT NOT NULL,
    size INTEGER NOT NULL,
    content_hash TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    chunked INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL,
    truncated INTEGER NOT NULL,
    begun_at DOUBLE PRECISION NOT NULL
);
CREATE INDEX IF NOT EXISTS versions_text ON versions (text_id);
CREATE INDEX IF NOT EXISTS versions_generation ON versions (generation);
CREATE TABLE IF NOT EXISTS documents (
    generation INTEGER NOT NULL,
    document_id TEXT NOT NULL,
    version_id TEXT NOT NULL,
    ingested_at TEXT NOT NULL,
    PRIMARY KEY (generation, document_id)
);
CREATE INDEX IF NOT EXISTS documents_version ON documents (version_id);
CREATE TABLE IF NOT EXISTS chunks (
    version_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    chunk_id TEXT NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    heading TEXT NOT NULL,
    page INTEGER,
    text TEXT NOT NULL,
    vector_key {blob} NOT NULL,
    PRIMARY KEY (version_id, ordinal)
);
CREATE INDEX IF NOT EXISTS chunks_id ON chunks (chunk_id);
CREATE INDEX IF NOT EXISTS chunks_vector ON chunks (vector_key);
CREATE TABLE IF NOT EXISTS vectors (
    vector_key {blob} PRIMARY KEY,
    vector {vector} NOT NULL,
    made_at DOUBLE PRECISION NOT NULL
);
CREATE TABLE IF NOT EXISTS index_entries (
    number {serial},
    generation INTEGER NOT NULL,
    version_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    UNIQUE (version_id, ordinal)
);
CREATE INDEX IF NOT EXISTS index_entries_generation ON index_entries (generation, number);
{words};
CREATE TABLE IF NOT EXISTS extractions (
    chunk_id TEXT PRIMARY KEY,
    configuration TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS mentions (
    entity_id TEXT NOT NULL,
    chunk_id TEXT NOT NULL,
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    occurrences INTEGER NOT NULL,
    PRIMARY KEY (entity_id, chunk_id, name, label)
);
CREATE INDEX IF NOT EXISTS mentions_chunk ON mentions (chunk_id);
CREATE TABLE IF NOT EXISTS relations (
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    type TEXT NOT NULL,
    chunk_id TEXT NOT NULL,
    occurrences INTEGER NOT NULL,
    PRIMARY KEY (source, target, type, chunk_id)
);
CREATE INDEX IF NOT EXISTS relations_chunk ON relations (chunk_id);
CREATE INDEX IF NOT EXISTS relations_target ON relations (target);
CREATE TABLE IF NOT EXISTS entities (
    entity_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    mention_count INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL,
    vector_key {blob},
    embedded_as TEXT
);
CREATE INDEX IF NOT EXISTS entities_vector ON entities (vector_key);
CREATE TABLE IF NOT EXISTS clusterings (
    kind TEXT PRIMARY KEY,
    settings TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS communities (
    kind TEXT NOT NULL,
    community_id TEXT NOT NULL,
    level INTEGER NOT NULL,
    parent TEXT,
    label TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (kind, community_id)
);
CREATE TABLE IF NOT EXISTS members (
    kind TEXT NOT NULL,
    community_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    member_id TEXT NOT NULL,
    PRIMARY KEY (kind, community_id, position)
)
"""

_FENCES: Final = """
CREATE TABLE IF NOT EXISTS fences (
    scope TEXT PRIMARY KEY,
    fence BIGINT NOT NULL,
    detail TEXT NOT NULL
)
"""
_ROOTS: Final = "CREATE TABLE IF NOT EXISTS document_roots (document_id TEXT PRIMARY KEY, root TEXT NOT NULL)"
_OWNERS: Final = "CREATE TABLE IF NOT EXISTS document_owners (document_id TEXT PRIMARY KEY, owner TEXT NOT NULL)"
_METADATA: Final = """
CREATE TABLE IF NOT EXISTS document_metadata (
    document_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (document_id, name)
)
"""
"""These tables are also created in older stores. Older versions ignore them."""


def schema(*, blob: str, vector: str, serial: str, words: str) -> list[str]:
    """Return the statements that create the tables.

    Databases differ in the types of bytes, vectors and ascending numbers, and in the statements for the table of words.
    """
    tables = _TABLES.format(blob=blob, vector=vector, serial=serial, words=words)
    return [part.strip() for part in tables.split(";") if part.strip()]


def set_up(transaction: Transaction, statements: list[str], database: Database) -> None:
    """Create missing tables, and migrate a store of layout 1. Raises `ValueError` for a store with a newer layout."""
    transaction.run("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    transaction.run(_FENCES)
    for statement in (_ROOTS, _OWNERS, _METADATA):
        transaction.run(statement)
    row = transaction.one("SELECT value FROM meta WHERE name = 'layout'")
    layout = 0 if row is None else int(row[0])
    if layout == LAYOUT:
        return
    if layout > LAYOUT:
        raise ValueError(
            f"the document store has layout {layout}, but this version of milepost supports {LAYOUT}; upgrade milepost"
        )
    for statement in statements:
        transaction.run(statement)
    if layout == 1:
        for generation, version_id in transaction.all(
            "SELECT generation, version_id FROM documents ORDER BY generation, document_id"
        ):
            add_entries(transaction, database, generation, version_id)
    transaction.many(
        """INSERT INTO meta (name, value) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value""",
        [("layout", str(LAYOUT)), ("removals", "0"), *([("revision", "0")] if layout == 0 else [])],
    )
