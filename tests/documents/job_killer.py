"""Run a document job through the command line, kill it with SIGKILL, and read the rows that it left."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

from tests.cli.subprocesses import CommandRunner

COMMIT = 64
NO_ROWS = {"meta", "fences", "sqlite_sequence"}  # fences are times of the last writing run
TIMES = {"begun_at", "made_at", "created_at", "ingested_at"}
WORDS = """SELECT e.version_id, e.ordinal, w.body FROM index_entries e LEFT JOIN words w ON w.rowid = e.number
    UNION ALL SELECT 'no entry', rowid, body FROM words WHERE rowid NOT IN (SELECT number FROM index_entries)"""
"""Numbers of entries depend on the order of publication."""
PATIENCE = 300.0


class JobKiller:
    """A document store and a job store of their own, and the commands that use them."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database = folder / "documents.db"
        self.program = CommandRunner(folder, MILEPOST_DOCUMENTS=str(self.database), REDIS_URL="", MILEPOST_URL="")
        self.random = random.Random(seed)

    def undisturbed(self, *words: str) -> tuple[dict[str, Any], float]:
        """Run a command to its end. Return the ended job, and the seconds from its first to its last step."""
        done = self.program.start("run", *words, "--json")
        code, out, err = done.finish(timeout=PATIENCE)
        assert code == 0, f"{out[-2000:]}\n{err[-2000:]}"
        job: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert job["status"] == "completed"
        return job, sum(job["result"].get("seconds", {}).values())

    def killed(self, *words: str, after: float = PATIENCE, committed: int | None = None) -> bool:
        """Start a command, and kill it `after` seconds from the start of its job, or when so much of its work is
        committed.

        Return whether it was still running.
        """
        started = self.program.start("run", *words)
        began = self._jobs_begun(words[0])
        until = time.monotonic() + PATIENCE
        while self._jobs_begun(words[0]) == began and started.process.poll() is None:
            assert time.monotonic() < until, "the job does not begin"
            time.sleep(0.005)
        until = time.monotonic() + after
        while time.monotonic() < until and started.process.poll() is None:
            if committed is not None and self.committed(words[0]) >= committed:
                break
            time.sleep(min(0.005, max(0.0, until - time.monotonic())))
        started.signal(signal.SIGKILL)
        code, _, err = started.finish()
        assert code in (0, -signal.SIGKILL), err[-2000:]
        return code != 0

    def killed_at(self, *words: str, committed: int) -> None:
        """Kill a command when so much of its work is committed; again from the beginning if it has ended before it was seen."""
        before = self._copy()
        for _ in range(10):
            if self.killed(*words, committed=committed):
                return
            self._restore(before)
        raise AssertionError("it always ended before that number of commits was seen")

    def killed_often(self, *words: str, kills: int, seconds: float) -> tuple[dict[str, Any], int]:
        """Kill a command that takes `seconds` at `kills` random moments while its job runs, then let it end.

        Return the ended job, and how often it ended before it was killed; the store is then restored. The moments are
        spread so that a job that resumes is usually not finished by the last kill.
        """
        spread = seconds if words[0] == "clustering" else 1.8 * seconds / kills
        before, early, hits = self._copy(), 0, 0
        while hits < kills:
            if self.killed(*words, after=self.random.uniform(0, spread)):
                hits += 1
            else:
                early += 1
                assert early < 10 * kills, "the job is too short to be killed"
                self._restore(before)
        committed = self.committed(words[0])
        job, _ = self.undisturbed(*words)
        for did in ("embedded", "extracted"):
            if did in job["result"]:
                again = job["result"][did] - (self.committed(words[0]) - committed)
                assert again == 0, f"{again} that were committed were {did} again"
        return job, early

    def _copy(self) -> Path | None:
        if not self.database.exists():
            return None
        copy = self.database.with_suffix(".before")
        with (
            contextlib.closing(sqlite3.connect(self.database)) as here,
            contextlib.closing(sqlite3.connect(copy)) as there,
        ):
            here.backup(there)
        return copy

    def _restore(self, copy: Path | None) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.database.with_name(self.database.name + suffix).unlink(missing_ok=True)
        if copy is not None:
            shutil.copyfile(copy, self.database)

    def committed(self, job_type: str) -> int:
        """Return how much work a job has committed: the extracted chunks, or the stored vectors."""
        try:
            return int(
                self._read(f"SELECT count(*) FROM {'extractions' if job_type == 'extraction' else 'vectors'}")[0][0]
            )
        except sqlite3.OperationalError:  # no file or no tables yet
            return 0

    def uncommitted(self, job_type: str) -> int:
        """Return the chunks that a killed job reported as done and the store does not have. The next attempt repeats
        them.
        """
        stages = {stage["name"]: stage for stage in self._jobs(job_type)[0]["stages"]}
        name = {"extraction": "Extracting", "ingestion": "Vectors"}.get(job_type, "Embedding")
        return int(stages[name]["done"]) - self.committed(job_type)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the content of the store without times, table by table."""
        return rows_of(self.database)

    def close(self) -> None:
        """End running processes."""
        self.program.__exit__(None, None, None)

    def _jobs_begun(self, job_type: str) -> tuple[str, ...]:
        """Return a value that changes when a job of a type starts or resumes."""
        file = self.program.folder / "state" / "milepost" / "jobs.db"
        return tuple(f"{job['job_id']} {job['worker']}" for job in self._jobs(job_type)) if file.exists() else ()

    def _jobs(self, job_type: str) -> list[dict[str, Any]]:
        from milepost import SQLiteJobManager

        manager = SQLiteJobManager(str(self.program.folder / "state" / "milepost" / "jobs.db"))
        try:
            return [job.to_dict() for job in manager.list_jobs(job_type=job_type)]
        finally:
            manager.close()

    def log(self, job_id: str) -> list[str]:
        """Return the log lines of a job."""
        from milepost import SQLiteJobManager

        manager = SQLiteJobManager(str(self.program.folder / "state" / "milepost" / "jobs.db"))
        try:
            logs = [event.data for event in manager.events(job_id) if event.kind == "log" and event.data]
            return [line["text"] for data in logs for line in data["lines"]]
        finally:
            manager.close()

    def _read(self, sql: str) -> list[tuple[Any, ...]]:
        return read(self.database, sql)


def rows_of(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return the content of a store's file without times, table by table."""
    found = {}
    for (table,) in read(database, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
        if table == "words":
            found[table] = sorted(read(database, WORDS), key=repr)
        elif table not in NO_ROWS and not table.startswith("words_"):
            columns = [
                row[1] for row in read(database, f"PRAGMA table_info({table})") if row[1] not in TIMES | {"number"}
            ]
            found[table] = sorted(read(database, f"SELECT {', '.join(columns)} FROM {table}"), key=repr)
    return found


def read(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()
