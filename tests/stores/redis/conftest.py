"""The fixture of the two APIs of a Redis store."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[True, False], ids=["blocking", "asynchronous"])
def blocking(request: pytest.FixtureRequest) -> bool:
    """Return whether the store is blocking."""
    return bool(request.param)
