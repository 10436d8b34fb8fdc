"""Where documents, their chunks and vectors, and what was found in them are kept.

`open_store` is the way in. One implementation, written once in SQL that SQLite and
PostgreSQL share, over a small port for each. Knows no file, no model and no job.
"""

from __future__ import annotations

import os
from pathlib import Path

from milepost.documents.store.protocol import DocumentStore

__all__ = ["DocumentStore", "default_database", "open_store"]


def default_database() -> str:
    """The database that is used when none is named: `MILEPOST_DOCUMENTS`, else a file in the user's data folder."""
    named = os.environ.get("MILEPOST_DOCUMENTS")
    if named:
        return named
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "milepost", "documents.db")


def open_store(database: str | Path | None = None) -> DocumentStore:
    """Open a document store: a path, ``sqlite:///path`` or ``postgresql://...``; made when it is not there.

    Raises `ValueError` for another kind of URL; the first use of what it returns does for a file that is no
    document store, and `StoreBusy` when it stays locked, `ImportError` when the
    package for it is missing.
    """
    from milepost.documents.store.sql import SqlDocumentStore

    name = str(database) if database is not None else default_database()
    if name.startswith(("postgresql://", "postgres://")):
        from milepost.documents.store.postgres import PostgresDatabase

        return SqlDocumentStore(PostgresDatabase(name))
    if name.startswith("sqlite://"):
        name = name.removeprefix("sqlite://").removeprefix("/") if name.startswith("sqlite:///") else name[9:]
    elif "://" in name:
        raise ValueError(f"a document store is a file or a postgresql:// URL, not {name!r}")
    from milepost.documents.store.sqlite import SqliteDatabase

    return SqlDocumentStore(SqliteDatabase(Path(name)))
