"""The command `output`, on every kind of store."""

from __future__ import annotations

from tests.cli.stores_fixture import StoreFixture, covers


@covers("output")
def test_output_is_printed_and_followed(working: StoreFixture) -> None:
    job_id = working.call("submit", "count", "30").strip()
    numbers = [str(number) for number in range(30)]
    assert working.call("output", "--follow", job_id).split() == numbers
    assert working.call("output", job_id).split() == numbers
    rows = working.rows("output", job_id)
    assert "".join(row["text"] for row in rows).split() == numbers
    assert (rows[0]["attempt"], rows[0]["offset"], rows[0]["starts_over"]) == (1, 0, True)
    assert "not found" in working.error_line("output", "nothing", code=1)
