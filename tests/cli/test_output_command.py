"""The command `output`, on every kind of store."""

from __future__ import annotations

import re

from milepost import Jobs, Retry, Run
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


def test_output_is_that_of_last_run(where: StoreFixture) -> None:
    """The text of a lost or failed run stood before that of the next one."""
    with where.manager() as manager:
        jobs = Jobs(manager.store, options=manager.settings)

        @jobs.job("chat", max_attempts=2)
        def chat(run: Run) -> None:
            run.output("Paris is" if run.attempt == 1 else "Paris is in France.")
            if run.attempt == 1:
                raise Retry(delay=0)

        with jobs.run_workers():
            job_id = jobs.wait(jobs.submit(chat).job_id, 30).job_id
    last = where.run("output", job_id)
    assert (last.stdout, "1 earlier run also wrote output; --all" in last.stderr) == ("Paris is in France.\n", True)
    assert where.call("output", job_id, "--all") == "Paris isParis is in France.\n"
    assert "--- attempt 2 ---" in where.run("output", job_id, "--all").stderr
    assert re.search(r"output +27 B", where.call("show", job_id))
