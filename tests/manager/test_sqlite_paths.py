"""How a manager finds its database file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from milepost.manager.sync import SQLiteJobManager
from milepost.settings import Settings


@pytest.mark.parametrize("name", ["jobs#1.db", "jobs?a=b.db", "jobs%20.db", "sql ite.db"])
def test_sqlite_path_is_used_literally(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for given in (path, str(path)):
        manager = SQLiteJobManager(given, options=Settings())
        manager.create_job()
        manager.close()
    assert os.listdir(tmp_path) == [name]
