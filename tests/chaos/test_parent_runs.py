"""A parent with 500 children resumes exactly once, while workers and the server of the store are killed every two seconds.

`scripts/parents.py` repeats it, and runs it with 10,000 children.
"""

from __future__ import annotations

import pytest

from tests.chaos.parent_runs import run_parent, store

pytestmark = [pytest.mark.slow, pytest.mark.timing, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("redis", marks=pytest.mark.service("redis-server")),
        pytest.param("postgres", marks=pytest.mark.service("postgresql")),
        "sqlite",
    ],
)
def test_parent_resumes_once_under_kills(kind: str) -> None:
    with store(kind) as (url, restart_server):
        found = run_parent(url, "parents", 500, restart_server)
    assert found.problems == []
    assert found.kills > 1
