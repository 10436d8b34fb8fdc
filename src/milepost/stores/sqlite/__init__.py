"""Jobs in one SQLite file on one machine, shared by its processes. `store` has the verbs."""

from milepost.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
