"""The store in one SQLite file, shared by the processes of one machine."""

from milepost.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
