"""What the tests of the document jobs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.documents.loader_process import LoaderProcess, LoadLimits


@pytest.fixture(scope="session")
def loader() -> Iterator[LoaderProcess]:
    """One loader child for the whole session, as a job would use it."""
    with LoaderProcess(LoadLimits(seconds=30)) as process:
        yield process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for documents."""
    path = tmp_path / "documents"
    path.mkdir()
    return path
