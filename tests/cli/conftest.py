"""The program of each test: on SQLite, and on Redis where a test asks for both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.programs import Program


@pytest.fixture(params=["sqlite", "redis"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    """The program on each shared store."""
    if request.param == "sqlite":
        place = {"MILEPOST_URL": request.getfixturevalue("sqlite_url")}
    else:
        place = {
            "MILEPOST_URL": request.getfixturevalue("redis_url"),
            "MILEPOST_NAMESPACE": request.getfixturevalue("redis_namespace"),
        }
    with Program(tmp_path, **place) as started:
        yield started


@pytest.fixture
def milepost(tmp_path: Path) -> Iterator[Program]:
    """The program on the default store of a user of its own."""
    with Program(tmp_path) as started:
        yield started
