"""How a manager comes to its store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from milepost.manager.synchronous import SQLiteJobManager
from milepost.settings import Settings


@pytest.mark.parametrize("name", ["jobs#1.db", "jobs?a=b.db", "jobs%20.db", "sql ite.db"])
def test_a_path_is_taken_as_it_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for given in (path, str(path)):
        manager = SQLiteJobManager(given, options=Settings())
        manager.create_job()
        manager.close()
    assert os.listdir(tmp_path) == [name]
