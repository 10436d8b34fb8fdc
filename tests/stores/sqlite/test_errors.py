"""Errors of the file, the disk and damaged records."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from milepost import SQLiteJobManager
from milepost.core import transitions as plans
from milepost.core.errors import (
    InvalidInputError,
    LayoutMismatchError,
    OutcomeUnknownError,
    StoreFullError,
    StoreUnavailableError,
)
from milepost.stores.factory import open_store
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import LAYOUT, Select, Write
from milepost.stores.query import Query, find
from milepost.stores.sqlite import SQLiteStore, database_file
from milepost.stores.sqlite.database_file import Busy, failure
from milepost.stores.sqlite.transaction import WriteTransaction
from milepost.stores.sync_bridge import run_sync
from tests.stores.sqlite.conftest import Make
from tests.stores.sqlite.sqlite_fixture import check_file, claim, create, do

UNPRIVILEGED_USER = 65534


def test_folder_path_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="is a folder; use a file in it"):
        run_sync(make(path=tmp_path).now())


def test_missing_folder_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="create its folder"):
        run_sync(make(path=tmp_path / "nowhere" / "jobs.db").now())


def test_foreign_file_is_left_unchanged(make: Make, path: Path) -> None:
    path.write_bytes(b"This is a letter, and not a database at all. " * 100)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="it is not an SQLite file; choose another path"):
        run_sync(make().now())
    assert path.read_bytes() == before


def test_foreign_tables_are_left_unchanged(make: Make, path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE customers (name TEXT)")
    other.execute("INSERT INTO customers VALUES ('ana')")
    other.commit()
    other.close()
    do(make(), create("a"))
    other = sqlite3.connect(path)
    assert other.execute("SELECT name FROM customers").fetchall() == [("ana",)]
    other.close()


def test_damaged_file_error_names_recovery(make: Make, path: Path) -> None:
    store = make()
    do(store, *(create(f"j{number}", metadata=f'"{"x" * 500}"') for number in range(200)))
    run_sync(store.close())
    raw = bytearray(path.read_bytes())
    for page in range(2, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 200] = os.urandom(200)
    path.write_bytes(raw)
    with pytest.raises(StoreUnavailableError, match="restore it from a backup"):
        run_sync(make().select(Select(), 1000))


def test_unknown_layout_is_refused(make: Make, path: Path) -> None:
    run_sync(make().now())
    for found, remedy in ((LAYOUT + 7, "upgrade milepost"), (0, "run: milepost migrate")):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE state SET value = ? WHERE name = 'layout'", (found,))
        connection.close()
        with pytest.raises(LayoutMismatchError, match=f"layout {found}, this release reads {LAYOUT}; {remedy}"):
            run_sync(make().now())


def test_schema_has_current_layout(make: Make) -> None:
    assert run_sync(make().check_health()).layout == LAYOUT


@contextmanager
def as_no_root() -> Iterator[None]:
    """Act as another user than root, because permissions do not count for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(UNPRIVILEGED_USER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_store_recovers_when_writable_again(make: Make, what: str) -> None:
    with as_no_root(), TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        store = make(path=path)
        do(store, create("a"))
        run_sync(store.close())  # it opens again when it is used
        closed = path if what == "file" else Path(folder)
        closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            with pytest.raises(StoreUnavailableError, match="writable for this user"):
                do(store, create("b"))
        finally:
            for each in (Path(folder), *Path(folder).iterdir()):  # SQLite's log has the permissions of its file
                each.chmod(stat.S_IRWXU)
        do(store, create("b"))
        assert run_sync(store.counts()) == {("t", "pending"): 2}
        run_sync(store.close())


def test_read_only_file_is_an_error_until_writable(make: Make) -> None:
    """As for root, to whom permissions mean nothing."""
    store = make()
    do(store, create("a"))
    connection = store._database._writer._connection
    assert connection is not None
    connection.execute("PRAGMA query_only=1")
    with pytest.raises(StoreUnavailableError, match="writable for this user"):
        run_sync(store.apply([create("b")]))
    assert run_sync(store.get("a")) is not None
    do(store, create("b"))


def test_full_disk_refuses_new_jobs_and_loses_none(make: Make, path: Path) -> None:
    store = make()
    do(store, *(create(f"j{number}") for number in range(20)))
    connection = store._database._writer._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages + 3}")

    def fill() -> None:
        for number in range(1000):
            run_sync(store.apply([create(f"more{number}", metadata=f'"{"x" * 3000}"')]))

    with pytest.raises(StoreFullError, match=r"jobs\.db: database or disk is full; free some disk space"):
        fill()
    jobs = run_sync(store.select(Select(), 1000))
    assert {job.job_id for job in jobs} >= {f"j{number}" for number in range(20)}
    connection.execute("PRAGMA max_page_count=1000000")
    do(store, create("after"))
    assert set(check_file(path)) == {*(job.job_id for job in jobs), "after"}


def test_jobs_are_listed_on_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: `milepost ls` failed when the disk was full, because a list recovers lost jobs first."""
    manager = SQLiteJobManager(path)
    manager.create_job("kept")

    async def full(**_: Any) -> None:
        raise StoreFullError("database or disk is full")

    monkeypatch.setattr(manager.store, "sweep", full)
    assert [job.job_id for job in manager.list_jobs()] == ["kept"]
    manager.close()


def test_outcome_is_unknown_only_for_commit_error() -> None:
    def error(code: int) -> sqlite3.OperationalError:
        made = sqlite3.OperationalError("disk I/O error")
        made.sqlite_errorcode = code
        return made

    flush = sqlite3.SQLITE_IOERR_FSYNC
    assert isinstance(failure(error(flush), "f", committing=True), OutcomeUnknownError)
    assert isinstance(failure(error(flush), "f", committing=False), StoreUnavailableError)
    assert isinstance(failure(error(sqlite3.SQLITE_FULL), "f", committing=True), StoreFullError)
    assert isinstance(failure(error(sqlite3.SQLITE_BUSY_SNAPSHOT), "f", committing=True), Busy)
    unopened = failure(error(sqlite3.SQLITE_IOERR_SHMSIZE), "f", committing=False)
    assert str(unopened) == "f: disk I/O error; free some disk space", (
        "it named the disk and the system log on a full disk"
    )
    programming = sqlite3.ProgrammingError("wrong number of bindings")
    assert failure(programming, "f", committing=False) is programming, "a programming error is not converted"


MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:40 / /data rw,relatime shared:2 - nfs4 server:/export rw
31 30 8:17 / /data/local rw,relatime - xfs /dev/sdb1 rw
32 22 0:41 / /with\\040space rw - fuse.sshfs me@host: rw
33 22 0:42 / /share rw - cifs //host/share rw
34 22 0:43 / /data2 rw - tmpfs tmpfs rw
35 22 0:44 / /share rw - ext4 /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/jobs.db", "ext4"),
        ("/data/jobs.db", "nfs4"),
        ("/data/local/deep/jobs.db", "xfs"),
        ("/data2/jobs.db", "tmpfs"),
        ("/with space/jobs.db", "fuse.sshfs"),
        ("/share/jobs.db", "ext4"),
    ],
)
def test_file_system_is_read_from_mount_table(path: str, kind: str) -> None:
    assert database_file.file_system(path, MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_network_file_system_is_refused(make: Make, path: Path, monkeypatch: Any, kind: str) -> None:
    monkeypatch.setattr(database_file, "file_system", lambda path: kind)
    with pytest.raises(StoreUnavailableError, match=rf"on a network file system \({kind}\).*use a local disk or Redis"):
        run_sync(make().now())
    assert not path.exists()


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", "sqlite:///", "sqlite://host/jobs.db"])
def test_url_without_file_is_refused(path: str) -> None:
    with pytest.raises(InvalidInputError):
        SQLiteStore(path)


def test_url_scheme_ignores_case(path: Path) -> None:
    store = open_store(f"SQLITE:///{path}")
    run_sync(store.apply([create("a")]))
    run_sync(store.close())
    assert set(check_file(path)) == {"a"}


def test_damaged_record_is_isolated_and_deletable(make: Make, path: Path) -> None:
    store = make()
    do(store, create("good"), create("bad"), create("worse"))
    with sqlite3.connect(path) as other:
        other.execute(
            "UPDATE jobs SET body = 's=' || CAST(x'eda080ff' AS TEXT) || char(10) || 'p=NaN' WHERE id = 'bad'"
        )
        other.execute("UPDATE jobs SET body = 'rubbish' WHERE id = 'worse'")
    other.close()
    jobs = {job.job_id: job for job in run_sync(store.select(Select(), 10))}
    assert set(jobs) == {"good", "bad", "worse"}
    assert jobs["good"].corrupt == ()
    assert "progress" in jobs["bad"].corrupt
    walked, cursor = [], None
    while cursor is not None or not walked:
        page = run_sync(find(store, Query(), 1, cursor))
        walked += [job.job_id for job in page.jobs]
        cursor = page.next_cursor
    assert walked == ["worse", "good", "bad"]
    for job_id in ("bad", "worse"):
        do(store, Write(job_id, plans.plan_delete(new_operation_id())))
    assert set(check_file(path)) == {"good"}


def test_failing_write_does_not_undo_others(make: Make, path: Path) -> None:
    store = make()
    bad = create("bad", message="a lone surrogate: \ud800")
    with pytest.raises(UnicodeEncodeError):
        run_sync(store.apply([create("a"), bad, create("b")]))
    assert set(check_file(path)) == {"a", "b"}


def test_exception_in_transaction_rolls_back(make: Make, path: Path, monkeypatch: Any) -> None:
    store = make()
    do(store, create("before"))

    def interrupted(self: WriteTransaction) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WriteTransaction, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sync(store.apply([create("never")]))
    do(store, create("after"))
    assert set(check_file(path)) == {"before", "after"}


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs a signal that can be raised")
def test_write_in_signal_handler_during_write_is_refused(make: Make, path: Path, monkeypatch: Any) -> None:
    store, seen = make(), []
    do(store, create("before"))

    def handler(*_: object) -> None:
        try:
            do(store, create("never"))
        except StoreUnavailableError as error:
            seen.append(str(error))

    finish = WriteTransaction.finish

    def interrupted(self: WriteTransaction) -> None:
        signal.raise_signal(signal.SIGALRM)
        finish(self)

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        monkeypatch.setattr(WriteTransaction, "finish", interrupted)
        do(store, create("after"))
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert len(seen) == 1
    assert "in a signal handler" in seen[0]
    assert set(check_file(path)) == {"before", "after"}


def test_replaced_file_is_reopened(make: Make, path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("milepost.stores.sqlite.database.FILE_CHECK_INTERVAL", 0.0)
    store = make()
    do(store, create("old"))
    position = run_sync(store.feed(None)).position
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert run_sync(store.get("old")) is None
    assert run_sync(store.feed(position)).lost
    do(store, create("new"))
    run_sync(store.close())
    assert set(check_file(path)) == {"new"}


def test_namespaces_in_one_file_are_separate(make: Make) -> None:
    one, two = make(namespace="one"), make(namespace='it\'s "two"')
    do(one, create("a"))
    do(two, create("a"), create("b"))
    assert [job.job_id for job in claim(one, 5)] == ["a"]
    assert run_sync(two.counts()) == {("t", "pending"): 2}
    assert run_sync(one.counts()) == {("t", "running"): 1}
    assert one.url != two.url


def test_namespaces_differing_in_case_are_separate(make: Make) -> None:
    names = ["team", "Team", "tEAM", "^team", "^Team", "^^team", "Milepost"]
    for name in names:
        do(make(namespace=name), create(f"of.{names.index(name)}"))
    for name in names:
        assert [job.job_id for job in run_sync(make(namespace=name).select(Select(), 10))] == [
            f"of.{names.index(name)}"
        ]


@pytest.mark.parametrize("namespace", ["", "a\0b", "sqlite_jobs", "SQLite_jobs"])
def test_reserved_namespace_is_refused(make: Make, namespace: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        make(namespace=namespace)
    assert refused.value.field == "namespace"


def test_closed_store_reopens(make: Make) -> None:
    store = make()
    threads = set(threading.enumerate())
    do(store, create("a"))
    run_sync(store.wait_for_work("w", ["other"], 0.02))
    run_sync(store.close())
    assert set(threading.enumerate()) <= threads, "the store's own threads have ended"
    assert run_sync(store.get("a")) is not None


def test_check_health_reports_problems(make: Make, path: Path, monkeypatch: Any) -> None:
    store = make()
    do(store, create("a"))
    found = run_sync(store.check_health())
    assert (found.kind, found.details["journal_mode"], found.details["integrity"]) == ("sqlite", "wal", "ok")
    assert "NORMAL" in found.durability
    assert found.warnings == ()
    monkeypatch.setattr("milepost.stores.sqlite.maintenance.LITTLE_DISK", 1 << 62)
    monkeypatch.setattr("milepost.stores.sqlite.maintenance.LARGE_LOG", 1)
    monkeypatch.setattr("milepost.stores.sqlite.maintenance.file_system", lambda path: "9p")
    found = run_sync(store.check_health())
    assert [word for word in ("disk", "WAL", "host") if any(word in warning for warning in found.warnings)] == [
        "disk",
        "WAL",
        "host",
    ]
    assert "FULL" in run_sync(make(synchronous="FULL").check_health()).durability
