"""Storage of documents, chunks, vectors and entities in SQLite or PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path

from milepost.documents.store.sql_store import DocumentStore

__all__ = ["DocumentStore", "default_database", "open_store"]


def default_database() -> str:
    """Return the default database: `MILEPOST_DOCUMENTS`, else a file in the user's data folder."""
    named = os.environ.get("MILEPOST_DOCUMENTS")
    if named:
        return named
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "milepost", "documents.db")


def check_health() -> list[str]:
    """Return the warnings of `milepost doctor` about the default database."""
    from milepost.stores.private_files import open_to_others

    database = default_database()
    exposed = open_to_others(database, "the texts of the documents")
    warnings = [] if exposed is None else [exposed]
    if "://" not in database and os.path.exists(database) and not _has_fts5():
        warnings.append(
            "documents are searched by meaning only: SQLite of this Python lacks FTS5; use a Python with FTS5"
        )
    return warnings


def _has_fts5() -> bool:
    import contextlib
    import sqlite3

    from milepost.documents.store.sqlite import has_fts5

    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        return has_fts5(connection)


def open_store(database: str | Path | None = None) -> DocumentStore:
    """Open or create a document store: a path, ``sqlite:///path`` or ``postgresql://...``.

    Raises `ValueError` for another kind of URL, and `ImportError` for a missing package. Its first use raises
    `ValueError` for a file that is not a document store, and `StoreBusyError` if it stays locked.
    """
    name = str(database) if database is not None else default_database()
    if name.startswith(("postgresql://", "postgres://")):
        from milepost.documents.store.postgres import PostgresDatabase

        return DocumentStore(PostgresDatabase(name))
    if name.startswith("sqlite://"):
        name = name.removeprefix("sqlite://").removeprefix("/") if name.startswith("sqlite:///") else name[9:]
    elif "://" in name:
        raise ValueError(f"the database must be a file or a postgresql:// URL, not {name!r}")
    from milepost.documents.store.sqlite import SqliteDatabase

    return DocumentStore(SqliteDatabase(Path(name)))
