"""The store `folder://PATH`: SQLite in a folder."""

from pathlib import Path

from milepost.stores.protocol import Store
from milepost.stores.sqlite import SQLiteStore


def open_folder(url: str, *, namespace: str, blocking: bool) -> Store:
    """Return the store in PATH/jobs.db."""
    folder = Path(url.removeprefix("folder://"))
    folder.mkdir(parents=True, exist_ok=True)
    return SQLiteStore(folder / "jobs.db", namespace=namespace, blocking=blocking)
