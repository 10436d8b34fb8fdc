"""What is wrong with the file, the disk or the record, and what is said of it."""

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

from milepost.core import lifecycle as plans
from milepost.core.errors import InvalidInput, LayoutMismatch, OutcomeUnknown, StoreFull, StoreUnavailable
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.opening import open_store
from milepost.stores.protocol import LAYOUT, Select, Write
from milepost.stores.query import Query, find
from milepost.stores.sqlite import SQLiteStore, place
from milepost.stores.sqlite.failures import Busy, failure
from milepost.stores.sqlite.transaction import Transaction
from tests.stores.sqlite.conftest import Make
from tests.stores.sqlite.words import check_file, claim, create, do

NOBODY = 65534


def test_a_folder_is_no_store(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="is a folder; name a file in it"):
        drive(make(path=tmp_path).now())


def test_a_missing_folder_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="its folder must exist"):
        drive(make(path=tmp_path / "nowhere" / "jobs.db").now())


def test_a_file_of_something_else_is_left_as_it_is(make: Make, path: Path) -> None:
    path.write_bytes(b"This is a letter, and not a database at all. " * 100)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="it is no SQLite file; choose another path"):
        drive(make().now())
    assert path.read_bytes() == before


def test_another_applications_tables_are_left_in_peace(make: Make, path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE customers (name TEXT)")
    other.execute("INSERT INTO customers VALUES ('ana')")
    other.commit()
    other.close()
    do(make(), create("a"))
    other = sqlite3.connect(path)
    assert other.execute("SELECT name FROM customers").fetchall() == [("ana",)]
    other.close()


def test_a_damaged_file_says_how_to_save_what_is_left(make: Make, path: Path) -> None:
    store = make()
    do(store, *(create(f"j{number}", metadata=f'"{"x" * 500}"') for number in range(200)))
    drive(store.close())
    raw = bytearray(path.read_bytes())
    for page in range(2, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 200] = os.urandom(200)
    path.write_bytes(raw)
    with pytest.raises(StoreUnavailable, match="restore it from a backup"):
        drive(make().select(Select(), 1000))


def test_a_layout_that_this_release_does_not_know_is_refused(make: Make, path: Path) -> None:
    drive(make().now())
    for found, remedy in ((LAYOUT + 7, "upgrade milepost"), (0, "run: milepost migrate")):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE state SET value = ? WHERE name = 'layout'", (found,))
        connection.close()
        with pytest.raises(LayoutMismatch, match=f"layout {found}, this release reads {LAYOUT}; {remedy}"):
            drive(make().now())


def test_the_schema_is_of_the_layout_that_stores_write(make: Make) -> None:
    assert drive(make().examine()).layout == LAYOUT


@contextmanager
def as_no_root() -> Iterator[None]:
    """Permissions count for everyone but root: be somebody else for a while, where these tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_must_not_be_written_is_said_and_is_written_again_when_it_may_be(make: Make, what: str) -> None:
    with as_no_root(), TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        store = make(path=path)
        do(store, create("a"))
        drive(store.close())  # it opens again when it is used
        closed = path if what == "file" else Path(folder)
        closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            with pytest.raises(StoreUnavailable, match="must be writable for this user"):
                do(store, create("b"))
        finally:
            for each in (Path(folder), *Path(folder).iterdir()):  # SQLite's log has the permissions of its file
                each.chmod(stat.S_IRWXU)
        do(store, create("b"))
        assert drive(store.counts()) == {("t", "pending"): 2}
        drive(store.close())


def test_a_read_only_file_is_an_error_and_the_store_works_when_it_no_longer_is(make: Make) -> None:
    """As for root, to whom permissions mean nothing."""
    store = make()
    do(store, create("a"))
    connection = store._port._writer._connection
    assert connection is not None
    connection.execute("PRAGMA query_only=1")
    with pytest.raises(StoreUnavailable, match="must be writable for this user"):
        drive(store.apply([create("b")]))
    assert drive(store.get("a")) is not None
    do(store, create("b"))


def test_a_full_disk_refuses_new_jobs_and_loses_none(make: Make, path: Path) -> None:
    store = make()
    do(store, *(create(f"j{number}") for number in range(20)))
    connection = store._port._writer._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages + 3}")

    def fill() -> None:
        for number in range(1000):
            drive(store.apply([create(f"more{number}", metadata=f'"{"x" * 3000}"')]))

    with pytest.raises(StoreFull, match=r"jobs\.db: database or disk is full; free some disk space"):
        fill()
    jobs = drive(store.select(Select(), 1000))
    assert {job.job_id for job in jobs} >= {f"j{number}" for number in range(20)}
    connection.execute("PRAGMA max_page_count=1000000")
    do(store, create("after"))
    assert set(check_file(path)) == {*(job.job_id for job in jobs), "after"}


def test_the_outcome_is_unknown_only_when_the_commit_itself_met_the_error() -> None:
    def error(code: int) -> sqlite3.OperationalError:
        made = sqlite3.OperationalError("disk I/O error")
        made.sqlite_errorcode = code
        return made

    flush = sqlite3.SQLITE_IOERR_FSYNC
    assert isinstance(failure(error(flush), "f", committing=True), OutcomeUnknown)
    assert isinstance(failure(error(flush), "f", committing=False), StoreUnavailable)
    assert isinstance(failure(error(sqlite3.SQLITE_FULL), "f", committing=True), StoreFull)
    assert isinstance(failure(error(sqlite3.SQLITE_BUSY_SNAPSHOT), "f", committing=True), Busy)
    programming = sqlite3.ProgrammingError("wrong number of bindings")
    assert failure(programming, "f", committing=False) is programming, "a mistake of ours is not dressed up"


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
def test_the_file_system_of_a_path_is_read_from_the_mount_table(path: str, kind: str) -> None:
    assert place.file_system(path, MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(make: Make, path: Path, monkeypatch: Any, kind: str) -> None:
    monkeypatch.setattr(place, "file_system", lambda path: kind)
    with pytest.raises(StoreUnavailable, match=rf"on a network file system \({kind}\).*use a local disk, or Redis"):
        drive(make().now())
    assert not path.exists()


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", "sqlite:///", "sqlite://host/jobs.db"])
def test_what_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        SQLiteStore(path)


def test_a_scheme_may_be_written_in_capitals(path: Path) -> None:
    store = open_store(f"SQLITE:///{path}")
    drive(store.apply([create("a")]))
    drive(store.close())
    assert set(check_file(path)) == {"a"}


def test_a_damaged_record_does_not_fail_its_neighbours_and_can_be_deleted(make: Make, path: Path) -> None:
    store = make()
    do(store, create("good"), create("bad"), create("worse"))
    with sqlite3.connect(path) as other:
        other.execute(
            "UPDATE jobs SET body = 's=' || CAST(x'eda080ff' AS TEXT) || char(10) || 'p=NaN' WHERE id = 'bad'"
        )
        other.execute("UPDATE jobs SET body = 'rubbish' WHERE id = 'worse'")
    other.close()
    jobs = {job.job_id: job for job in drive(store.select(Select(), 10))}
    assert set(jobs) == {"good", "bad", "worse"}
    assert jobs["good"].corrupt == ()
    assert "progress" in jobs["bad"].corrupt
    walked, cursor = [], None
    while cursor is not None or not walked:
        page = drive(find(store, Query(), 1, cursor))
        walked += [job.job_id for job in page.jobs]
        cursor = page.next_cursor
    assert walked == ["worse", "good", "bad"]
    for job_id in ("bad", "worse"):
        do(store, Write(job_id, plans.plan_delete(new_op())))
    assert set(check_file(path)) == {"good"}


def test_one_write_that_cannot_be_made_takes_no_other_with_it(make: Make, path: Path) -> None:
    store = make()
    bad = create("bad", message="a lone surrogate: \ud800")
    with pytest.raises(UnicodeEncodeError):
        drive(store.apply([create("a"), bad, create("b")]))
    assert set(check_file(path)) == {"a", "b"}


def test_what_raises_in_the_middle_of_a_transaction_undoes_it(make: Make, path: Path, monkeypatch: Any) -> None:
    store = make()
    do(store, create("before"))

    def interrupted(self: Transaction) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            drive(store.apply([create("never")]))
    do(store, create("after"))
    assert set(check_file(path)) == {"before", "after"}


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs a signal that can be raised")
def test_a_signal_handler_that_writes_in_the_middle_of_a_write_is_refused(
    make: Make, path: Path, monkeypatch: Any
) -> None:
    store, seen = make(), []
    do(store, create("before"))

    def handler(*_: object) -> None:
        try:
            do(store, create("never"))
        except StoreUnavailable as error:
            seen.append(str(error))

    finish = Transaction.finish

    def interrupted(self: Transaction) -> None:
        signal.raise_signal(signal.SIGALRM)
        finish(self)

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        monkeypatch.setattr(Transaction, "finish", interrupted)
        do(store, create("after"))
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert len(seen) == 1
    assert "in a signal handler" in seen[0]
    assert set(check_file(path)) == {"before", "after"}


def test_a_file_that_was_replaced_is_found_again(make: Make, path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("milepost.stores.sqlite.lane.LOOKED_AT_EVERY", 0.0)
    store = make()
    do(store, create("old"))
    position = drive(store.feed(None)).position
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert drive(store.get("old")) is None
    assert drive(store.feed(position)).lost
    do(store, create("new"))
    drive(store.close())
    assert set(check_file(path)) == {"new"}


def test_namespaces_of_one_file_know_nothing_of_each_other(make: Make) -> None:
    one, two = make(namespace="one"), make(namespace='it\'s "two"')
    do(one, create("a"))
    do(two, create("a"), create("b"))
    assert [job.job_id for job in claim(one, 5)] == ["a"]
    assert drive(two.counts()) == {("t", "pending"): 2}
    assert drive(one.counts()) == {("t", "running"): 1}
    assert one.url != two.url


def test_namespaces_that_differ_only_in_case_are_two(make: Make) -> None:
    names = ["team", "Team", "tEAM", "^team", "^Team", "^^team", "Milepost"]
    for name in names:
        do(make(namespace=name), create(f"of.{names.index(name)}"))
    for name in names:
        assert [job.job_id for job in drive(make(namespace=name).select(Select(), 10))] == [f"of.{names.index(name)}"]


@pytest.mark.parametrize("namespace", ["", "a\0b", "sqlite_jobs", "SQLite_jobs"])
def test_a_namespace_that_no_table_may_have_is_refused(make: Make, namespace: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        make(namespace=namespace)
    assert refused.value.field == "namespace"


def test_a_closed_store_opens_again_and_leaves_nothing_behind(make: Make) -> None:
    store = make()
    threads = threading.active_count()
    do(store, create("a"))
    drive(store.idle("w", ["other"], 0.02))
    drive(store.close())
    assert threading.active_count() == threads
    assert drive(store.get("a")) is not None


def test_examine_says_what_is_wrong(make: Make, path: Path, monkeypatch: Any) -> None:
    store = make()
    do(store, create("a"))
    found = drive(store.examine())
    assert (found.kind, found.details["journal_mode"], found.details["integrity"]) == ("sqlite", "wal", "ok")
    assert "NORMAL" in found.durability
    assert found.warnings == ()
    monkeypatch.setattr("milepost.stores.sqlite.fitness.LITTLE_DISK", 1 << 62)
    monkeypatch.setattr("milepost.stores.sqlite.fitness.LARGE_LOG", 1)
    monkeypatch.setattr("milepost.stores.sqlite.fitness.file_system", lambda path: "9p")
    found = drive(store.examine())
    assert [word for word in ("disk", "log", "host") if any(word in warning for warning in found.warnings)] == [
        "disk",
        "log",
        "host",
    ]
    assert "FULL" in drive(make(synchronous="FULL").examine()).durability
