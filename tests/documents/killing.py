"""Runs a document job through the real command line and kills it with SIGKILL; reads the rows that it left.

Owns the kill, its moment and what is compared. Knows no job's internals: what was committed is read from the store's file.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

from tests.cli.programs import Program

COMMIT = 64
NO_ROWS = {"meta"}
TIMES = {"begun_at", "made_at", "created_at", "ingested_at"}
PATIENCE = 300.0


class Killer:
    """One library: a document store and a job store of its own, and the commands that work on them."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database = folder / "documents.db"
        self.program = Program(folder, MILEPOST_DOCUMENTS=str(self.database), REDIS_URL="", MILEPOST_URL="")
        self.random = random.Random(seed)

    def undisturbed(self, *words: str) -> tuple[dict[str, Any], float]:
        """Run a command to its end: the ended job, and the seconds from the first step of the job to its last."""
        done = self.program.start("run", *words, "--json")
        code, out, err = done.finish(timeout=PATIENCE)
        assert code == 0, f"{out[-2000:]}\n{err[-2000:]}"
        job: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert job["status"] == "completed"
        return job, sum(job["result"].get("seconds", {}).values())

    def killed(self, *words: str, after: float = PATIENCE, vectors: int | None = None) -> bool:
        """Start a command and kill it `after` seconds from when its job runs, or when so many vectors are committed.

        Returns whether it still ran then.
        """
        started = self.program.start("run", *words)
        began = self._jobs_begun(words[0])
        until = time.monotonic() + PATIENCE
        while self._jobs_begun(words[0]) == began and started.process.poll() is None:
            assert time.monotonic() < until, "the job does not begin"
            time.sleep(0.005)
        until = time.monotonic() + after
        while time.monotonic() < until and started.process.poll() is None:
            if vectors is not None and self.vectors() >= vectors:
                break
            time.sleep(min(0.005, max(0.0, until - time.monotonic())))
        started.signal(signal.SIGKILL)
        code, _, err = started.finish()
        assert code in (0, -signal.SIGKILL), err[-2000:]
        return code != 0

    def killed_often(self, *words: str, kills: int, seconds: float) -> tuple[dict[str, Any], int]:
        """Kill a command that takes `seconds` again and again at random moments, then let it end.

        Returns the ended job and the number of kills that hit it while it ran. The moments are spread so that the
        job is usually not finished before the last kill.
        """
        hits = 0
        for _ in range(kills):
            hit = self.killed(*words, after=self.random.uniform(0, 1.8 * seconds / kills))
            hits += hit
            if not hit:
                break  # it ended between two kills; running it again changes nothing
        before = self.vectors()
        job, _ = self.undisturbed(*words)
        result = job["result"]
        if hit and "embedded" in result:
            assert result["embedded"] == self.vectors() - before, "a committed vector was computed again"
        return job, hits

    def vectors(self) -> int:
        """The number of vectors that are committed."""
        try:
            return int(self._read("SELECT count(*) FROM vectors")[0][0])
        except sqlite3.OperationalError:  # no file, or no tables in it yet
            return 0

    def uncommitted(self, job_type: str) -> int:
        """Chunks that a killed job says it has embedded and the store has not: what its next attempt does again."""
        stages = {stage["name"]: stage for stage in self._jobs(job_type)[0]["stages"]}
        return int(stages["Embedding"]["done"]) - self.vectors()

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that is in the store but the times, table by table."""
        found = {}
        for (table,) in self._read("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
            if table not in NO_ROWS:
                columns = [row[1] for row in self._read(f"PRAGMA table_info({table})") if row[1] not in TIMES]
                found[table] = sorted(self._read(f"SELECT {', '.join(columns)} FROM {table}"), key=repr)
        return found

    def close(self) -> None:
        """End what still runs."""
        self.program.__exit__(None, None, None)

    def _jobs_begun(self, job_type: str) -> tuple[str, ...]:
        """What changes when a job of a type begins, or is taken up again."""
        file = self.program.folder / "state" / "milepost" / "jobs.db"
        return tuple(f"{job['job_id']} {job['worker']}" for job in self._jobs(job_type)) if file.exists() else ()

    def _jobs(self, job_type: str) -> list[dict[str, Any]]:
        from milepost import SQLiteJobManager

        manager = SQLiteJobManager(str(self.program.folder / "state" / "milepost" / "jobs.db"))
        try:
            return [job.to_dict() for job in manager.list_jobs(job_type=job_type)]
        finally:
            manager.close()

    def _read(self, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
