"""The database file: path, clock, statements, how a connection is opened, and the meaning of SQLite's errors."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from milepost.core.defaults import CLOCK_LEAD
from milepost.core.errors import (
    InvalidInputError,
    LayoutMismatchError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from milepost.stores.factory import redact_url
from milepost.stores.named_sections import section
from milepost.stores.private_files import create_private_file
from milepost.stores.protocol import LAYOUT


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
    if code == sqlite3.SQLITE_ERROR and _LACKS.search(str(error)):
        return LayoutMismatchError(path, str(LAYOUT), LAYOUT, lacks=str(error))
    remedy = _REMEDIES.get(getattr(error, "sqlite_errorcode", code), _REMEDIES.get(code))
    if remedy is not None:
        return StoreUnavailableError(f"{path}: {error}; {remedy}", temporary=code in _TEMPORARY)
    return error


_LACKS = re.compile(r"no such (table|column|index)|has no column named")
"""What an error says of a table, column or index that does not exist."""
_REMEDIES = {
    sqlite3.SQLITE_CANTOPEN: "create its folder, and make both readable and writable for this user",
    sqlite3.SQLITE_READONLY: "make the file, its -wal and -shm, and their folder writable for this user",
    sqlite3.SQLITE_PERM: "make the file and its folder readable and writable for this user",
    sqlite3.SQLITE_AUTH: "make the file and its folder readable and writable for this user",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite file; choose another path",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup, or recover what can be read with: sqlite3 FILE .recover",
    sqlite3.SQLITE_IOERR: "check the disk and the system log",
    sqlite3.SQLITE_IOERR_SHMSIZE: "free some disk space",  # the disk is full, and the file is opened for the first time
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


STATEMENTS = Path(__file__).parent / "sql"
PLAIN_NAMESPACE = "milepost"
"""The namespace whose tables have no prefix."""

MIN_SQLITE = (3, 38)
"""The first SQLite with built-in JSON functions, UPSERT and row values."""

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "gpfs", "beegfs"}
    | {"glusterfs", "davfs", "davfs2", "fuse.sshfs", "fuse.ceph", "fuse.glusterfs", "fuse.davfs2", "fuse.s3fs"}
    | {"fuse.gcsfuse", "fuse.rclone", "fuse.goofys", "fuse.juicefs"}
)
"""File systems whose locks or shared memory do not work across machines: SQLite's WAL would be corrupted there."""

SHARED_FOLDERS = frozenset({"9p", "virtiofs", "vboxsf", "vmhgfs", "fuse.vmhgfs-fuse", "fuse.grpcfuse", "drvfs"})
"""Folders shared between a host and a virtual machine: safe if only one side uses the file."""

WAL_KEPT = 16 * 1024 * 1024
"""Bytes to which the WAL is truncated when it restarts."""


def path_of(url: str) -> str:
    """Return the path of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``. Raises InvalidInputError."""
    parts = urlsplit(url)
    path = parts.path[1:] if parts.path.startswith("/") else parts.path
    if parts.netloc or not path:
        raise InvalidInputError(
            "url", f"{redact_url(url)!r} names no file; use sqlite:///jobs.db, or sqlite:////absolute/jobs.db"
        )
    return os.path.expanduser(path)


class Statements:
    """The statements of one namespace by name, read at the first use."""

    def __init__(self, namespace: str) -> None:
        # SQLite ignores case in table names; a mark before each capital keeps Team and team apart.
        self._prefix = "" if namespace == PLAIN_NAMESPACE else re.sub("[A-Z^]", r"^\g<0>", namespace) + ":"
        self._texts: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = re.sub(r"\[(\w+)\]", self._named, _statement(name))
        return text

    def _named(self, match: re.Match[str]) -> str:
        return '"' + (self._prefix + match[1]).replace('"', '""') + '"'


@cache
def _statement(name: str) -> str:
    """Return a statement without its comments."""
    return re.sub(r"(?m)^--.*\n?", "", section(STATEMENTS, name)).strip()


@dataclass(slots=True)
class DatabaseFile:
    """One file and one namespace in it. `patience` is how many seconds to wait for the lock of another process."""

    path: str
    namespace: str
    synchronous: str
    patience: float
    clock: Callable[[], int]
    sql: Statements = field(init=False)
    last: int = 0
    """The latest time that this process has seen, in microseconds."""
    swept: int | None = None
    """The time of the last sweep of this process."""
    turned: tuple[int, int] = (0, 0)
    """A time ahead of the clock at which another process swept, and when this process noticed."""
    claim_numbers: dict[str, int] = field(default_factory=dict)
    """worker of this process -> the number of its last claim."""

    def __post_init__(self) -> None:
        self.sql = Statements(self.namespace)

    def read_clock(self, seen: int = 0) -> int:
        """Return the time, not earlier than any seen by this process or the file, unless that is more than CLOCK_LEAD ahead.

        A time further ahead was seen before the clock was set back, or by a process with a wrong clock.
        """
        now = self.clock()
        self.last = max(moment for moment in (now, self.last, seen) if moment <= now + CLOCK_LEAD)
        return self.last

    def open(self) -> sqlite3.Connection:
        """Return a new configured connection, with the tables created and their layout checked.

        Raises StoreUnavailableError, LayoutMismatchError, Busy and sqlite3.Error.
        """
        refuse(self.path)
        create_private_file(self.path)
        connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            self._settle(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _settle(self, connection: sqlite3.Connection) -> None:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise StoreUnavailableError(
                f"{self.path}: the file system does not support SQLite's WAL; use a local disk",
                temporary=False,
            )
        connection.execute(f"PRAGMA synchronous={self.synchronous}")
        connection.execute("PRAGMA fullfsync=1")  # on macOS flush to the disk itself; no effect elsewhere
        connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT}")
        connection.execute("PRAGMA cache_size=-16384")
        connection.execute("PRAGMA temp_store=MEMORY")
        if self.layout(connection) is None:
            try:
                connection.executescript(self.sql["schema"])
            except sqlite3.Error as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise Busy(str(error)) if primary(error) in BUSY else error from None
        found = self.layout(connection)
        if found != str(LAYOUT):
            raise LayoutMismatchError(self.path, str(found), LAYOUT)

    def layout(self, connection: sqlite3.Connection) -> str | None:
        """Return the layout of the namespace, or None if it has no tables yet."""
        try:
            row = connection.execute(self.sql["state_get"], ("layout",)).fetchone()
        except sqlite3.OperationalError as error:
            if primary(error) == sqlite3.SQLITE_ERROR and "no such table" in str(error):
                return None
            raise
        return str(row[0]) if row is not None else None


def refuse(path: str) -> None:
    """Raise StoreUnavailableError if SQLite cannot, or must not, be used at this path."""
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise StoreUnavailableError(
            f"SQLite {sqlite3.sqlite_version} is older than {'.'.join(map(str, MIN_SQLITE))}; use a newer Python",
            temporary=False,
        )
    if os.path.isdir(path):
        text = f"{path}: is a folder; use a file in it, such as {os.path.join(path, 'jobs.db')}"
        raise StoreUnavailableError(text, temporary=False)
    kind = file_system(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreUnavailableError(
            f"{path}: is on a network file system ({kind}), where SQLite's locks do not work; use a local disk or Redis",
            temporary=False,
        )


def file_system(path: str, mounts: str | None = None) -> str:
    """Return the file system type of a path, or empty if unknown. `mounts` replaces /proc/self/mountinfo.

    It is read from the mount table, because opening and closing the file would drop SQLite's locks.
    """
    if mounts is None:
        if not sys.platform.startswith("linux"):
            return ""
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
                mounts = table.read()
        except OSError:
            return ""
    real = os.path.realpath(path)
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields, separator, rest = line.partition(" - ")
        words = fields.split(" ")
        if not separator or len(words) < 5:
            continue
        point = words[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # a later mount on the same point covers the earlier one
            best, kind = len(point), rest.split(" ")[0]
    return kind


def system_micros() -> int:
    """Return the clock of this machine, in microseconds since 1970."""
    return time.time_ns() // 1000
