"""Load the rows of each file with a loop of its own name, and continue in the file at hand."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow


def handler(run: Run, folder: str) -> Any:
    with closing(sqlite3.connect(Path(folder) / "rows.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS rows (row TEXT PRIMARY KEY)")
        for name in ("a.csv", "b.csv", "c.csv"):
            for row in run.each(range(6), stage=f"Rows {name}", resume=True):
                db.execute("REPLACE INTO rows VALUES (?)", (f"{name}:{slow(row)}",))
        return db.execute("SELECT count(*) FROM rows").fetchone()[0]
