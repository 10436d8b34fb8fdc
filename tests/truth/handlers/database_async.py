"""Replace a row for each word that comes asynchronously, and continue."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import aslow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


async def words() -> AsyncIterator[str]:
    for word in WORDS:
        yield word


async def handler(run: Run, folder: str) -> Any:
    with closing(sqlite3.connect(Path(folder) / "words.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY)")
        async for word in run.each(words(), key=str, resume=True):
            db.execute("REPLACE INTO words VALUES (?)", (await aslow(word),))
        return db.execute("SELECT count(*) FROM words").fetchone()[0]
