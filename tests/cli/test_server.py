"""The same commands against a server: `--url http://...`."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.cli.programs import Program, until

APP = "tests.cli.work:jobs"


@pytest.fixture
def served(milepost: Program) -> Iterator[Program]:
    """A program that talks to a server, beside which a worker lives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    milepost.start("serve", "--port", str(port))
    milepost.start("worker", APP, "-c", "4")
    with Program(milepost.folder, MILEPOST_URL=url) as client:
        until(lambda: client.run("workers", "--json").stdout, timeout=40)
        yield client


@pytest.mark.timeout(180)
def test_each_command_works_on_a_server(served: Program) -> None:
    assert {known["name"] for known in served.rows("types")} >= {"count", "broken"}
    job_id = served.call("submit", "count", "3", "--label", "owner=ana").strip()
    served.call("watch", job_id)
    served.call("submit", "broken", "alas", "--watch", code=1)
    assert {job["status"] for job in served.rows("ls")} == {"completed", "failed"}
    assert [job["job_id"] for job in served.rows("ls", "label.owner:ana")] == [job_id]
    assert served.rows("show", job_id)[0]["result"]["counted"] == 3
    assert served.rows("show", job_id[:20])[0]["job_id"] == job_id
    assert "about to fail" in served.call("logs", "@last")
    assert served.rows("failures")[0]["group"].startswith("ValueError@work.py")
    assert {known["job_type"]: known["total"] for known in served.rows("stats")} == {"count": 1, "broken": 1}
    again = served.rows("retry", "status:failed", "--yes")[0]
    served.call("watch", again["job_id"], code=1)

    long = served.call("submit", "count", "100000").strip()
    until(lambda: served.rows("show", long)[0]["status"] == "running")
    served.call("watch", long, "--timeout", "1", code=124)
    [cancelled] = served.rows("cancel", long, "--wait")
    assert cancelled["receipt"]["confirmed"] is True
    served.call("watch", long, code=3)

    assert "paused" in served.call("types", "pause", "count")
    assert served.rows("types", "resume", "count")[0]["paused"] is False
    assert json.loads(served.run("doctor", "--json").stdout)["layout"] == 1
    assert served.rows("purge")[0]["purged"] == 0
    assert "give its store" in served.complaint("purge", "--older-than", "1d", code=2)
    assert "give the store with --url" in served.complaint("migrate", code=2)
    assert "needs the store itself" in served.complaint("worker", APP, code=2)
    assert re.fullmatch(r"mp_\w+\S+", served.call("keys", "create", "ci").strip())
    served.call("keys", "revoke", served.rows("keys")[0]["id"])
    assert "Deleted 3 jobs" in served.call("rm", "is:ended", "--yes")


@pytest.mark.timeout(120)
def test_run_submits_watches_and_asks_at_ctrl_c(served: Program) -> None:
    assert "counted  4" in served.call("run", "count", "4")
    terminal = served.on_terminal("run", "count", "100000")
    terminal.wait_for("numbers")
    terminal.press("\x03")
    terminal.wait_for("c cancels the job")
    terminal.press("d\r")
    assert terminal.finish() == 130
    [job] = served.rows("ls", "status:running")
    again = served.on_terminal("run", "count", "100000")
    again.wait_for("numbers")
    assert [now["job_id"] for now in served.rows("ls", "status:running")] == [job["job_id"]]
    again.press("\x03")
    again.wait_for("c cancels the job")
    again.press("c\r")
    assert again.finish() == 3
    assert served.rows("show", job["job_id"])[0]["receipt"]["confirmed"] is True
