"""Check the health of the file: journal mode, integrity, size, disk, file system, permissions."""

from __future__ import annotations

import os
import shutil
import sqlite3

from milepost.stores.private_files import open_to_others
from milepost.stores.protocol import LAYOUT, HealthReport
from milepost.stores.sqlite.database_file import SHARED_FOLDERS, file_system
from milepost.stores.sqlite.transaction import ReadTransaction

MIB = 1024 * 1024
CHECKED_UP_TO = 64 * MIB
"""The integrity of files up to this size (bytes) is checked; above, the check would take seconds."""

LITTLE_DISK = 256 * MIB
LARGE_LOG = 256 * MIB

DURABILITY = {
    "FULL": "WAL, synchronous=FULL: acknowledged writes survive power loss",
    "NORMAL": "WAL, synchronous=NORMAL: acknowledged writes survive the process; power loss may lose the last ones",
}


def check_health(db: ReadTransaction) -> HealthReport:
    """Return the health of the file."""
    path, warnings = db.file.path, []
    size, log = _size(path), _size(path + "-wal")
    kind, free = file_system(path), _free(path)
    mode = str(db.pragma("journal_mode"))
    integrity = str(db.pragma("quick_check(3)")) if size <= CHECKED_UP_TO else "not checked, the file is large"
    if mode != "wal":
        warnings.append(
            f"journal mode is {mode}, not wal: another program changed it, and readers and writers block each other; "
            "run: PRAGMA journal_mode=WAL"
        )
    if size <= CHECKED_UP_TO and integrity != "ok":
        warnings.append(
            f"the file is damaged ({integrity}); restore it, or recover what can be read: sqlite3 {path} .recover"
        )
    if free is not None and free < LITTLE_DISK:
        warnings.append(f"only {free // MIB} MiB of disk space are free; free some")
    if log > LARGE_LOG:
        warnings.append(f"the WAL has grown to {log // MIB} MiB: a process keeps a read transaction open; end it")
    exposed = open_to_others(path, "the jobs and their secrets")
    if exposed is not None:
        warnings.append(exposed)
    if kind in SHARED_FOLDERS:
        warnings.append(f"the file is in a folder shared with the host ({kind}): use it only from one side")
    details = {
        "path": path, "namespace": db.file.namespace, "journal_mode": mode, "integrity": integrity, "file_system": kind,
        "file_bytes": str(size), "wal_bytes": str(log), "free_disk_bytes": "" if free is None else str(free),
    }  # fmt: skip
    layout = db.number("layout") or LAYOUT
    return HealthReport(
        "sqlite", sqlite3.sqlite_version, layout, DURABILITY[db.file.synchronous], tuple(warnings), details
    )


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
