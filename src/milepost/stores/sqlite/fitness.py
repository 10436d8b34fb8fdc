"""Looking at the file as a whole: what is wrong with it, in plain words. Knows no job."""

from __future__ import annotations

import os
import shutil
import sqlite3

from milepost.stores.protocol import LAYOUT, Fitness
from milepost.stores.sqlite.place import SHARED, file_system
from milepost.stores.sqlite.transaction import Reading

MIB = 1024 * 1024
CHECKED_UP_TO = 64 * MIB
"""Bytes of file up to which its integrity is checked in full; above that it would take seconds."""

LITTLE_DISK = 256 * MIB
LARGE_LOG = 256 * MIB

DURABILITY = {
    "FULL": "WAL, synchronous=FULL: what was acknowledged survives power loss",
    "NORMAL": "WAL, synchronous=NORMAL: what was acknowledged survives the process; power loss may take the last of it",
}


def examine(db: Reading) -> Fitness:
    """Journal mode, integrity, sizes, the file system and the free disk."""
    path, warnings = db.place.path, []
    size, log = _size(path), _size(path + "-wal")
    kind, free = file_system(path), _free(path)
    mode = str(db.pragma("journal_mode"))
    integrity = str(db.pragma("quick_check(3)")) if size <= CHECKED_UP_TO else "not checked, the file is large"
    if mode != "wal":
        warnings.append(
            f"journal mode is {mode}, not wal: something else has changed it; readers and writers block each other"
        )
    if size <= CHECKED_UP_TO and integrity != "ok":
        warnings.append(
            f"the file is damaged ({integrity}); restore it, or save what can be read: sqlite3 {path} .recover"
        )
    if free is not None and free < LITTLE_DISK:
        warnings.append(f"only {free // MIB} MiB of disk are free")
    if log > LARGE_LOG:
        warnings.append(f"the log has grown to {log // MIB} MiB: some process keeps a read transaction open")
    if kind in SHARED:
        warnings.append(f"{kind} is a folder of the host: only one side may use the file")
    details = {
        "path": path, "namespace": db.place.namespace, "journal_mode": mode, "integrity": integrity, "file_system": kind,
        "file_bytes": str(size), "wal_bytes": str(log), "free_disk_bytes": "" if free is None else str(free),
    }  # fmt: skip
    layout = db.number("layout") or LAYOUT
    return Fitness("sqlite", sqlite3.sqlite_version, layout, DURABILITY[db.place.synchronous], tuple(warnings), details)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _free(path: str) -> int | None:
    try:
        return shutil.disk_usage(os.path.dirname(path)).free
    except OSError:
        return None
