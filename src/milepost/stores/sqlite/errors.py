"""Map SQLite errors to milepost errors with remedies."""

from __future__ import annotations

import sqlite3

from milepost.core.errors import OutcomeUnknownError, StoreError, StoreFullError, StoreUnavailableError


class Busy(Exception):
    """Another process holds the lock. Nothing was done; the work can be retried."""


BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

UNUSABLE_AFTER = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)
"""After one of these errors a connection is not used again."""


def primary(error: sqlite3.Error) -> int:
    """Return the primary result code of an error, 0 if it has none (SQLite was called wrongly)."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF


def undecodable(error: sqlite3.Error) -> bool:
    """Return whether stored text is not UTF-8: one damaged record must not fail the others."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode")


def failure(error: sqlite3.Error, path: str, *, committing: bool) -> Exception:
    """Return the exception for an SQLite error. `committing`: it was raised by COMMIT.

    An I/O error of COMMIT leaves the outcome unknown: the frames may be in the log, and a recovery may apply them.
    """
    code = primary(error)
    if code in BUSY:
        return Busy(str(error))
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(f"{path}: {error}; free some disk space")
    if code == sqlite3.SQLITE_IOERR and committing:
        return OutcomeUnknownError(f"{path}: {error} while committing")
    remedy = _REMEDIES.get(code)
    if remedy is not None:
        return StoreUnavailableError(f"{path}: {error}; {remedy}", temporary=code in _TEMPORARY)
    return error


_REMEDIES = {
    sqlite3.SQLITE_CANTOPEN: "create its folder, and make both readable and writable for this user",
    sqlite3.SQLITE_READONLY: "make the file, its -wal and -shm, and their folder writable for this user",
    sqlite3.SQLITE_PERM: "make the file and its folder readable and writable for this user",
    sqlite3.SQLITE_AUTH: "make the file and its folder readable and writable for this user",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite file; choose another path",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup, or recover what can be read with: sqlite3 FILE .recover",
    sqlite3.SQLITE_IOERR: "check the disk and the system log",
    sqlite3.SQLITE_PROTOCOL: "too many processes opened the file at once; try again",
    sqlite3.SQLITE_NOLFS: "the file exceeds the size limit of its file system; move it",
    sqlite3.SQLITE_TOOBIG: "a value exceeds SQLite's limit; store it elsewhere",
    sqlite3.SQLITE_NOMEM: "not enough memory; free some and try again",
}


_TEMPORARY = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM}
"""Errors that may be temporary."""


def still_locked(path: str, seconds: float) -> StoreError:
    """Return the exception for a lock that was not released in time."""
    return StoreUnavailableError(
        f"{path}: locked by another process for more than {seconds:g} s; nothing was written, try again"
    )
