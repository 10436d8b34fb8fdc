"""What SQLite's errors mean to callers. Owns the mapping and the remedies, one line each; knows no statement."""

from __future__ import annotations

import sqlite3

from milepost.core.errors import OutcomeUnknown, StoreError, StoreFull, StoreUnavailable


class Busy(Exception):
    """Another process holds the lock; nothing was done, and it may be tried again."""


BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
READONLY_DBMOVED = 1032
"""The file was moved or removed while it was open; a new connection finds the one that is there now."""

SPOILT = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)
"""After one of these a connection is not used again."""


def primary(error: sqlite3.Error) -> int:
    """The primary result code of an error, 0 when it has none (a mistake in how SQLite was called)."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF


def undecodable(error: sqlite3.Error) -> bool:
    """Whether a stored text is not UTF-8: one damaged record, which must not fail those around it."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode")


def failure(error: sqlite3.Error, path: str, *, committing: bool) -> Exception:
    """What to raise for an error of SQLite. `committing`: it came out of the COMMIT itself.

    An I/O error there leaves the outcome open: the frames may be in the log or not, and a recovery may find them.
    """
    code = primary(error)
    if code in BUSY:
        return Busy(str(error))
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"{path}: {error}; free some disk space")
    if code == sqlite3.SQLITE_IOERR and committing:
        return OutcomeUnknown(f"{path}: {error} while committing")
    remedy = _REMEDIES.get(code)
    if remedy is not None:
        return StoreUnavailable(f"{path}: {error}; {remedy}")
    return error


_REMEDIES = {
    sqlite3.SQLITE_CANTOPEN: "its folder must exist, and both must be readable and writable for this user",
    sqlite3.SQLITE_READONLY: "the file, its -wal and -shm, and their folder must be writable for this user",
    sqlite3.SQLITE_PERM: "the file and its folder must be readable and writable for this user",
    sqlite3.SQLITE_AUTH: "the file and its folder must be readable and writable for this user",
    sqlite3.SQLITE_NOTADB: "it is no SQLite file; choose another path",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup, or save what can be read with: sqlite3 FILE .recover",
    sqlite3.SQLITE_IOERR: "look at the disk, and at the system's log",
    sqlite3.SQLITE_PROTOCOL: "too many processes open the file at once; try again",
    sqlite3.SQLITE_NOLFS: "the file is larger than this file system allows",
    sqlite3.SQLITE_TOOBIG: "a value is larger than SQLite takes",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}


def still_locked(path: str, seconds: float) -> StoreError:
    """What to raise when the lock was not free in time."""
    return StoreUnavailable(
        f"{path}: another process has kept the file locked for {seconds:g} s; nothing was written, try again"
    )
