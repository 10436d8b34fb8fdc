"""Files of stores are readable by their owner only, from the first byte."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost import JobManager
from milepost.cli import main
from milepost.documents.store import open_store
from milepost.stores.private_files import create_private_file, create_private_folder, open_to_others
from milepost.stores.sync_bridge import run_sync

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")


@pytest.fixture(autouse=True, params=[0o022, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set a usual umask, and one that removes no permission."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_job_store_and_its_log_are_private(tmp_path: Path) -> None:
    """Every local user could read the job store: secrets of webhooks, links and parameters."""
    manager = JobManager(f"sqlite:///{tmp_path / 'jobs.db'}")
    manager.create_job()
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["jobs.db", "jobs.db-shm", "jobs.db-wal"]
    assert {mode(path) for path in files} == {0o600}
    manager.close()


def test_document_store_and_its_folders_are_private(tmp_path: Path) -> None:
    """Every local user could read the texts of all documents."""
    store = open_store(tmp_path / "data" / "milepost" / "documents.db")
    store.counts()
    made = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert len(made) == 3
    assert {mode(path) for path in made} == {0o600}
    assert mode(tmp_path / "data") == mode(tmp_path / "data" / "milepost") == 0o700
    store.close()


def test_existing_file_keeps_mode_and_doctor_warns(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.touch()
    path.chmod(0o644)
    manager = JobManager(f"sqlite:///{path}")
    manager.create_job()
    assert mode(path) == 0o644
    [warning] = [text for text in run_sync(manager.store.check_health()).warnings if "has mode" in text]
    assert "0644" in warning
    assert "chmod go=" in warning
    path.chmod(0o600)
    assert not any("has mode" in text for text in run_sync(manager.store.check_health()).warnings)
    manager.close()


def test_doctor_checks_document_store_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = tmp_path / "documents.db"
    documents.touch()
    documents.chmod(0o640)
    monkeypatch.setenv("MILEPOST_DOCUMENTS", str(documents))
    main(["doctor", "--json", "--url", f"sqlite:///{tmp_path / 'jobs.db'}"])
    [warning] = [text for text in json.loads(capsys.readouterr().out)["warnings"] if "documents" in text]
    assert "0640" in warning


def test_create_keeps_existing_file(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    create_private_file(str(tmp_path / "kept"))
    assert (tmp_path / "kept").read_text() == "x"
    create_private_file(str(tmp_path / "no" / "folder"))
    create_private_folder(str(tmp_path))
    with pytest.raises(OSError):
        create_private_folder(str(tmp_path / "kept" / "below"))
    assert open_to_others(str(tmp_path / "absent"), "x") is None


def test_concurrent_create_keeps_sqlite_locks(tmp_path: Path) -> None:
    """Closing a descriptor of a file drops this process's locks on it."""
    for number in range(30):
        path, barrier, failures = str(tmp_path / f"{number}.db"), threading.Barrier(3), list[str]()

        def write(path: str = path, barrier: threading.Barrier = barrier, failures: list[str] = failures) -> None:
            barrier.wait()
            create_private_file(path)
            connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            try:
                connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")
                for _ in range(5):
                    connection.execute("INSERT INTO numbers VALUES (1)")
            except sqlite3.Error as error:
                failures.append(str(error))
            finally:
                connection.close()

        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sqlite3.connect(path).execute("SELECT count(*) FROM numbers").fetchone() == (15,)
