"""Stores and servers for the attacks, one of each kind per module."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.live_server import LiveServer


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the URL and the namespace of an empty store."""
    if request.param == "sqlite":
        folder: Path = tmp_path_factory.mktemp("store")
        return f"sqlite:///{folder / 'jobs.db'}", "milepost"
    pytest.importorskip("milepost.stores.redis")
    return request.getfixturevalue("redis_url"), f"sec-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def live(place: tuple[str, str]) -> Iterator[LiveServer]:
    """Run a server with keys on each kind of store."""
    server = LiveServer(*place, MILEPOST_AUTH="keys")
    with server:
        yield server
