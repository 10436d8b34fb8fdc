"""Replace a row for each word, continue after the last one, and ask the database for the result."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    with closing(sqlite3.connect(Path(folder) / "words.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY, n INTEGER)")
        for word in run.each(WORDS, resume=True):
            db.execute("REPLACE INTO words VALUES (?, ?)", (slow(word), len(word)))
        return list(db.execute("SELECT count(*), sum(n) FROM words").fetchone())
