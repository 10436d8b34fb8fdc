"""The systemd unit of `docs/how-to/deploy.md`."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from milepost.core import defaults

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "deploy.md"


@pytest.fixture
def unit() -> ConfigParser:
    """Return the unit that the page shows."""
    (text,) = re.findall(r"^```ini\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found = ConfigParser(interpolation=None)
    found.read_string(text)
    return found


def test_unit_restarts_worker_however_often_it_exits(unit: ConfigParser) -> None:
    """After five exits in six seconds systemd never started the worker again; in [Service] it ignores the limit's setting."""
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert (unit["Service"]["Restart"], unit["Service"]["RestartSec"]) == ("always", "2")


def test_unit_waits_longer_than_grace(unit: ConfigParser) -> None:
    """A worker that is killed within its grace gives no job back."""
    assert unit["Service"].get("KillSignal", "SIGTERM") == "SIGTERM"
    assert float(unit["Service"]["TimeoutStopSec"]) >= 2 * defaults.GRACE


def test_unit_sends_sigterm_to_worker_alone(unit: ConfigParser) -> None:
    """By default systemd sends SIGTERM to the programs that handlers have started too, and their jobs fail."""
    assert unit["Service"]["KillMode"] == "mixed"
