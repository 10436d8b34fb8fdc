"""The commands that submit and run jobs, on every kind of store: `run`, `submit`, `worker`, `serve`.

`worker` and `serve` cannot use a server, and say so in one line, with the remedy.
"""

from __future__ import annotations

import json
import re
import signal
from contextlib import ExitStack
from datetime import datetime, timedelta

import pytest

from tests.cli.stores_fixture import APP, StoreFixture, covers
from tests.cli.subprocesses import until
from tests.services import free_port


@covers("run")
def test_run(working: StoreFixture) -> None:
    app = () if working.is_server else ("--app", APP)
    out = working.call("run", *app, "count", "4", "note=hello")
    assert "counted  4" in out
    [job] = working.rows("ls")
    assert (job["status"], job["progress"], job["result"]["counted"]) == ("completed", 1.0, 4)
    assert f"milepost show {job['job_id']}" in out
    again = re.search(r"(\S.*\S) +resume it", working.call("run", *app, "broken", "alas", code=1))
    assert again is not None
    assert again[1].startswith("milepost retry" if working.is_server else "the same command")
    ended = working.run("run", *app, "broken", "alas", "--json").stdout.splitlines()[-1]
    assert json.loads(ended)["error"] == "alas"


@covers("submit")
def test_submit(working: StoreFixture) -> None:
    job_id = working.call("submit", "count", "3", "--label", "owner=ana", "--priority", "7").strip()
    working.call("watch", job_id)
    [job] = working.rows("show", job_id)
    assert (job["labels"], job["priority"], job["result"]["counted"]) == ({"owner": "ana"}, 7, 3)
    working.call("submit", "broken", "alas", "--watch", code=1)
    later = working.call("submit", "count", "1", "--delay", "2h", "--expires-in", "3h", "--unique-key", "k").strip()
    assert working.call("submit", "count", "2", "--unique-key", "k").strip() == later
    assert later in working.error_line("submit", "count", "2", "--unique-key", "k", "--on-duplicate", "refuse", code=1)
    [waiting] = working.rows("show", later)
    begin = datetime.fromisoformat(waiting["created_at"])
    assert datetime.fromisoformat(waiting["not_before"]) == begin + timedelta(hours=2)
    assert "usage: milepost submit count" in working.error_line("submit", "count", code=2)
    placed = working.call("submit", "count", "1", "--queue", "gpu", "--group", "g 1", "--parent-id", job_id).strip()
    assert [job["job_id"] for job in working.rows("ls", 'group:"g 1"', "queue:gpu")] == [placed]
    shown = working.call("show", placed)
    assert re.search(r"queue +gpu", shown)
    assert re.search(r"group +g 1", shown)
    assert re.search(rf"parent +{job_id}", shown)
    last = working.call(
        "submit", "count", "1", "--after", f"job:{later}", "--after", "group:g 1", "--on-failure", "run"
    )
    [held] = working.rows("ls", f"after:job:{later}")
    assert (held["job_id"], held["activity"]) == (last.strip(), f"Waiting for job {later}")
    budget = ("--budget", "usd=0.5", "--budget", "tokens=1000")
    asking = working.call("submit", "count", "1", *budget, "--on-budget", "ask").strip()
    [spent] = working.rows("usage", asking)
    assert spent["budget"] == {"usd": 0.5, "tokens": 1000}
    with working.manager() as manager:
        job = manager.get_job(asking)
        assert job is not None
        assert job.record["on_budget"] == "ask"


def test_submit_waits_for_worker_that_is_starting(where: StoreFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a script that started a worker and submitted at once failed with "no worker has published 'count'"."""
    with ExitStack() as later:
        monkeypatch.setattr("milepost.cli.commands.submit.sleep", lambda _: later.enter_context(where.worker()))
        where.call("submit", "count", "2", "--watch")
        assert where.error_line("submit", "cuont", "2", code=2).startswith(
            "milepost: job_type: no worker has published"
        )


@covers("worker")
def test_worker(where: StoreFixture) -> None:
    if where.is_server:
        assert "a worker cannot run through a server; pass the store URL with --url" in where.error_line(
            "worker", APP, code=2
        )
        return
    worker = where.start("worker", APP, "-c", "2")
    until(lambda: where.rows("types"))
    where.call("submit", "count", "2", "--watch")
    worker.signal(signal.SIGTERM)
    code, out, _ = worker.finish()
    assert code == 0
    assert [json.loads(line).get("event") for line in out.splitlines()].count("completed") == 1


@covers("serve")
def test_serve(where: StoreFixture) -> None:
    if where.is_server:
        assert "is already a server; pass a store URL with --url" in where.error_line("serve", code=2)
        return
    where.fill("a-done", "completed")
    port = free_port()
    server = where.start("serve", "--port", str(port))
    until(lambda: where.run("ls", "--url", f"http://127.0.0.1:{port}").returncode == 0)
    assert where.rows("ls", "--url", f"http://127.0.0.1:{port}") == where.rows("ls")
    code, _, said = where.start("serve", "--port", str(port)).finish()
    assert code == 1
    assert "in use" in said
    server.signal(signal.SIGTERM)
    server.finish()
