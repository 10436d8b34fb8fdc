"""The store in PostgreSQL, for any number of processes and machines."""

from milepost.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
