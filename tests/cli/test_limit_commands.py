"""The commands of limits, on every kind of store."""

from __future__ import annotations

from tests.cli.stores_fixture import StoreFixture, covers


@covers("limit", "limit ls", "limit set", "limit rm", "limit close", "limit open")
def test_limit_is_managed(working: StoreFixture) -> None:
    assert "No limits" in working.call("limit")
    said = working.call("limit", "set", "embed", "--running", "8", "--per-partition", "2")
    assert said == "embed is limited to 8 at once, 2 of each partition\n"
    (row,) = working.rows("limit", "ls")
    assert (row["key"], row["running"], row["per_partition"], row["rate"], row["gate_until"]) == (
        "embed",
        8,
        2,
        None,
        None,
    )
    said = working.call("limit", "set", "embed", "--running", "8", "--rate", "500/minute")
    assert said == "embed is limited to 8 at once, any of each partition, 500/min starts\n"
    assert "500/min" in working.call("limit")
    working.call("limit", "close", "embed", "2h")
    assert working.rows("limit")[0]["gate_until"] is not None
    working.call("limit", "open", "embed")
    assert working.rows("limit")[0]["gate_until"] is None
    assert "any of each partition" in working.call("limit", "set", "embed", "--running", "0")
    working.call("limit", "rm", "embed")
    assert working.rows("limit") == []


def test_invalid_limit_is_refused(working: StoreFixture) -> None:
    words = working.error_line("limit", "set", "embed", "--running", "-1", code=2)
    assert "'--running': '-1' must be a whole number from 0 to 1000000" in words
    assert "'--per-partition': '0' must be a whole number from 1" in working.error_line(
        "limit", "set", "embed", "--per-partition", "0", code=2
    )
    assert "--running" in working.error_line("limit", "set", "embed", code=2)
    assert "rate" in working.error_line("limit", "set", "embed", "--rate", "often", code=2)
    assert "for example '500/min'" in working.error_line("limit", "set", "embed", "--rate", "0/s", code=2)
    assert "TIME: 'soon' is not a duration" in working.error_line("limit", "close", "embed", "soon", code=2)
    assert "TIME: '-1' must be between 0" in working.error_line("limit", "close", "embed", "-1", code=2)
    assert working.rows("limit") == []


def test_unknown_key_is_reported(working: StoreFixture) -> None:
    """A misspelt key was accepted without a word."""
    assert working.error_line("limit", "open", "embod", code=0).startswith("milepost: the gate of embod is not closed;")
    assert working.error_line("limit", "rm", "embod", code=0).startswith("milepost: embod has no limit;")


def test_type_limited_to_nothing_is_paused(working: StoreFixture) -> None:
    working.call("limit", "set", "count", "--running", "0")
    [known] = working.rows("types", "pause", "count")
    assert (known["limit"], known["paused"]) == (0, True)
