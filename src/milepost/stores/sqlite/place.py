"""Where a store is: its file, how it is opened, and whether it may be there. Owns connections' settings and the layout
check; knows no verb.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from milepost.core.errors import InvalidInput, LayoutMismatch, StoreUnavailable
from milepost.stores.protocol import LAYOUT
from milepost.stores.sqlite.failures import BUSY, Busy, primary
from milepost.stores.sqlite.statements import Statements

OLDEST = (3, 38)
"""SQLite has JSON functions without asking, UPSERT and row values."""

NETWORK = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "gpfs", "beegfs"}
    | {"glusterfs", "davfs", "davfs2", "fuse.sshfs", "fuse.ceph", "fuse.glusterfs", "fuse.davfs2", "fuse.s3fs"}
    | {"fuse.gcsfuse", "fuse.rclone", "fuse.goofys", "fuse.juicefs"}
)
"""File systems whose locks or shared memory do not reach the other machines: SQLite's WAL would be corrupted there."""

SHARED = frozenset({"9p", "virtiofs", "vboxsf", "vmhgfs", "fuse.vmhgfs-fuse", "fuse.grpcfuse", "drvfs"})
"""Folders of a host, seen in a virtual machine: safe as long as one side alone uses the file."""

WAL_KEPT = 16 * 1024 * 1024
"""Bytes to which the log is cut when it begins anew after having grown."""


def path_of(url: str) -> str:
    """The path of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``. Raises InvalidInput."""
    parts = urlsplit(url)
    path = parts.path[1:] if parts.path.startswith("/") else parts.path
    if parts.netloc or not path:
        raise InvalidInput("url", f"{url!r} names no file; write sqlite:///jobs.db, or sqlite:////absolute/jobs.db")
    return os.path.expanduser(path)


@dataclass(slots=True)
class Place:
    """One file and one namespace in it. `patience` is how long to wait for the lock of another process, in seconds."""

    path: str
    namespace: str
    synchronous: str
    patience: float
    clock: Callable[[], int]
    sql: Statements = field(init=False)
    last: int = 0
    """The latest moment that this process has seen, in microseconds: the clock does not go behind it."""

    def __post_init__(self) -> None:
        self.sql = Statements(self.namespace)

    def tick(self, seen: int = 0) -> int:
        """The clock, never behind what this process, or the file, has seen."""
        self.last = max(self.last, seen, self.clock())
        return self.last

    def open(self) -> sqlite3.Connection:
        """A new connection, its settings made, the tables there and of this layout.

        Raises StoreUnavailable, LayoutMismatch, Busy and sqlite3.Error.
        """
        refuse(self.path)
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
            raise StoreUnavailable(
                f"{self.path}: its file system has no shared memory for SQLite's WAL; use a local disk"
            )
        connection.execute(f"PRAGMA synchronous={self.synchronous}")
        connection.execute("PRAGMA fullfsync=1")  # on macOS a flush that reaches the disk; elsewhere it means nothing
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
            raise LayoutMismatch(self.path, str(found), LAYOUT)

    def layout(self, connection: sqlite3.Connection) -> str | None:
        """The layout of the namespace, None when it has no tables yet."""
        try:
            row = connection.execute(self.sql["state_get"], ("layout",)).fetchone()
        except sqlite3.OperationalError as error:
            if primary(error) == sqlite3.SQLITE_ERROR and "no such table" in str(error):
                return None
            raise
        return str(row[0]) if row is not None else None


def refuse(path: str) -> None:
    """Raise StoreUnavailable for a path on which SQLite must not, or cannot, be used."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise StoreUnavailable(
            f"SQLite {sqlite3.sqlite_version} is too old, {'.'.join(map(str, OLDEST))} is needed; use a newer Python"
        )
    if os.path.isdir(path):
        raise StoreUnavailable(f"{path}: is a folder; name a file in it, such as {os.path.join(path, 'jobs.db')}")
    kind = file_system(path)
    if kind in NETWORK:
        raise StoreUnavailable(
            f"{path}: is on a network file system ({kind}), where SQLite's locks do not hold; use a local disk, or Redis"
        )


def file_system(path: str, mounts: str | None = None) -> str:
    """The kind of file system that a path is on, empty when it cannot be told. `mounts` stands for /proc/self/mountinfo.

    Read from the mount table, not by opening the file: closing another descriptor of it would drop SQLite's locks.
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
    """The clock of this machine, in microseconds since 1970."""
    return time.time_ns() // 1000
