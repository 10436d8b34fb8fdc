"""The way of a call through the package is not longer than the table in docs/architecture.md says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from milepost.settings import Settings
from tests.architecture.call_paths import CallPath, cancel_path, event_path, run_path, update_path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
ROW = re.compile(r"^\| (?P<call>[^|]+?) \| (?P<store>\w+) \| (?P<files>\d+) \| (?P<requests>\d*) ?\|$", re.MULTILINE)
LIMITS = {
    (row["call"], row["store"]): (int(row["files"]), int(row["requests"] or 0))
    for row in ROW.finditer(PAGE.read_text())
}


def check(call: str, store: str, path: CallPath) -> None:
    """Fail if a path has more files or requests than its row of the table."""
    files, requests = LIMITS[call, store]
    listed = "\n".join(sorted(path.files))
    assert len(path.files) <= files, f"{call} enters {len(path.files)} files, the table allows {files}:\n{listed}"
    assert len(path.requests) <= requests, f"{call} makes {path.requests}, the table allows {requests}"


@pytest.fixture
def options(redis_namespace: str) -> Settings:
    """Return settings with an empty namespace."""
    return Settings(namespace=redis_namespace)


def test_update_path_is_within_table(url: str, options: Settings) -> None:
    check("`update_job`", re.split(r"\W", url)[0], update_path(url, options))


def test_run_path_is_within_table(redis_url: str, options: Settings) -> None:
    check("claim, run and complete a job", "redis", run_path(redis_url, options))


def test_cancel_path_is_within_table(redis_url: str, options: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cancel_path(redis_url, options, monkeypatch)
    check("`POST /api/jobs/{id}/cancel`, until the code has stopped", "redis", path)


def test_event_path_is_within_table(redis_url: str, options: Settings) -> None:
    check("an event, from the feed to a client of its job", "redis", event_path(redis_url, options))


def test_longer_path_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = update_path("memory://", Settings())
    assert {"manager/manager.py", "stores/memory/store.py"} <= found.files
    monkeypatch.setitem(LIMITS, ("a call", "memory"), (3, 0))
    with pytest.raises(AssertionError, match="the table allows 3"):
        check("a call", "memory", found)
