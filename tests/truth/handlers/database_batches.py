"""Write batches of rows, each in one transaction, and continue after the last batch."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    with closing(sqlite3.connect(Path(folder) / "words.db")) as db:
        db.execute("CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY)")
        for batch in run.each(WORDS, batch=3, resume=True):
            with db:
                db.executemany("INSERT OR IGNORE INTO words VALUES (?)", [(slow(word),) for word in batch])
        return db.execute("SELECT count(*) FROM words").fetchone()[0]
