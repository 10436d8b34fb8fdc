"""The commands of limits, on every kind of store."""

from __future__ import annotations

from tests.cli.stores_fixture import StoreFixture, covers


@covers("limit", "limit ls", "limit set", "limit rm")
def test_limit_is_managed(working: StoreFixture) -> None:
    assert "No limits" in working.call("limit")
    said = working.call("limit", "set", "embed", "--running", "8", "--per-partition", "2")
    assert said == "embed is limited to 8 at once, 2 of each partition\n"
    (row,) = working.rows("limit", "ls")
    assert row == {"key": "embed", "running": 8, "per_partition": 2, "leases": 0, "partitions": {}}
    assert "any of each partition" in working.call("limit", "set", "embed", "--running", "0")
    working.call("limit", "rm", "embed")
    assert working.rows("limit") == []


def test_invalid_limit_is_refused(working: StoreFixture) -> None:
    assert "running" in working.error_line("limit", "set", "embed", "--running", "-1", code=2)
    assert "per_partition" in working.error_line("limit", "set", "embed", "--per-partition", "0", code=2)
    assert "--running" in working.error_line("limit", "set", "embed", code=2)
    assert working.rows("limit") == []


def test_type_limited_to_nothing_is_paused(working: StoreFixture) -> None:
    working.call("limit", "set", "count", "--running", "0")
    [known] = working.rows("types", "pause", "count")
    assert (known["limit"], known["paused"]) == (0, True)
