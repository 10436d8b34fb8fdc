"""Settings for all explorations."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet_sweeper(caplog: pytest.LogCaptureFixture) -> None:
    """Drop the log lines of the sweeper, which reports each of a hundred thousand lost leases."""
    caplog.set_level(logging.ERROR, "milepost.sweeper")
