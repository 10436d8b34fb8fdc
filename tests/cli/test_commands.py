"""Each command on a SQLite file, Redis and a server. `covers` declares the commands of a test; each needs one.

A command that cannot use a server says so in one line, with the remedy: `worker`, `serve`, `migrate`, and `draw` without
a document store.
"""

from __future__ import annotations

import json
import re
import signal
from datetime import datetime, timedelta

import pytest

from milepost import Jobs, Run
from milepost.stores.sync_bridge import run_sync
from milepost.web import auth
from milepost.web.security.api_keys import ApiKeyStore
from tests.cli.stores_fixture import APP, StoreFixture, covers
from tests.cli.subprocesses import until
from tests.services import free_port

# --- run


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


# --- look


@pytest.fixture
def filled(where: StoreFixture) -> StoreFixture:
    """Return a store with one job of each status."""
    for job_id, status in (("a-done", "completed"), ("a-bad", "failed"), ("b-gone", "cancelled"), ("c-now", "running")):
        where.fill(job_id, status)
    where.fill("d-next", None)
    return where


@covers("tree")
def test_tree(where: StoreFixture) -> None:
    with where.manager() as manager:
        manager.create_job("root")
        for name in ("left", "right"):
            manager.create_job(name, parent_id="root")
        manager.create_job("leaf", parent_id="left")
        manager.update_job("leaf", "running", 0.5)
    lines = where.call("tree", "root").splitlines()
    assert [line.split("  ")[-2].strip() for line in lines] == ["root", "left", "leaf", "right"]
    assert lines[2].startswith("    running     50%  generic  leaf")
    assert [job["depth"] for job in where.rows("tree", "root")] == [0, 1, 2, 1]
    assert where.call("tree", "-n", "1", "root").splitlines()[1] == "  ... 1 more"


@covers("ls")
def test_ls_in_pipe_is_aligned_and_uncut(filled: StoreFixture) -> None:
    lines = filled.call("ls").splitlines()
    assert lines[0].split() == ["ID", "TYPE", "STATUS", "%", "CREATED", "ACTIVITY"]
    assert [line.split()[0] for line in lines[1:]] == ["d-next", "c-now", "b-gone", "a-bad", "a-done"]
    assert "\x1b" not in "".join(lines)
    assert len({line.index(" generic ") for line in lines[1:]}) == 1
    assert all(line == line.rstrip() for line in lines)


@covers("ls")
def test_ls_takes_filters(filled: StoreFixture) -> None:
    for terms, found in (
        (["status:failed"], {"a-bad"}),
        (["status:failed,running"], {"a-bad", "c-now"}),
        (["is:active"], {"c-now", "d-next"}),
        (["label.owner:ana", "not.status:pending"], {"a-done", "a-bad", "b-gone", "c-now"}),
        (["created:1h", "title of b"], {"b-gone"}),
        (["id:a-"], {"a-done", "a-bad"}),
        (["status:failed", "status:running", "-n", "1"], {"c-now"}),
    ):
        assert {job["job_id"] for job in filled.rows("ls", *terms)} == found, terms
    assert filled.call("ls", "status:failed", "status:running", "nothing").splitlines()[1:] == []
    assert "unknown status 'foo'" in filled.error_line("ls", "status:foo", code=2)


@covers("ls")
def test_ls_watch_in_pipe_prints_line_per_change(working: StoreFixture) -> None:
    working.fill("a-now", "running")
    out = working.start("ls", "-w", "--json").process.stdout
    assert out is not None
    lines = (json.loads(line) for line in out)
    assert next(lines)["job_id"] == "a-now"
    job_id = working.call("submit", "count", "3").strip()
    ended = next(job for job in lines if job["status"] == "completed")
    assert (ended["job_id"], ended["result"]["counted"]) == (job_id, 3)


@covers("show")
def test_show(filled: StoreFixture) -> None:
    assert filled.rows("show", "b")[0]["job_id"] == "b-gone"
    assert filled.rows("show", "@last")[0]["job_id"] == "d-next"
    assert "a-bad, a-done" in filled.error_line("show", "a-", code=2)
    assert "milepost ls" in filled.error_line("show", "x", code=1)
    assert "not found" in filled.error_line("show", "ffffffff", code=1)
    shown = filled.call("show", "a-bad")
    for part in ("generic", "a-bad", "failed", "47%", "Failed", "owner=ana", "title of a-bad"):
        assert part in shown
    assert "milepost rm a-bad" in shown
    assert re.search(r"created +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d", shown)
    assert re.search(r"created .*UTC", filled.call("show", "a-bad", "--utc"))


@covers("watch")
def test_watch_exit_code_reflects_outcomes(working: StoreFixture) -> None:
    good = working.call("submit", "count", "3").strip()
    also_good = working.call("submit", "count", "4").strip()
    bad = working.call("submit", "broken", "alas").strip()
    long = working.call("submit", "count", "100000").strip()
    working.call("watch", good, also_good, code=0)
    working.call("watch", good, bad, code=1)
    assert "the jobs continue" in working.error_line("watch", long, "--timeout", "0.5", code=124)
    working.call("cancel", long, "--wait")
    working.call("watch", good, long, code=3)
    working.call("watch", bad, long, code=1)
    assert "not found" in working.error_line("watch", "no-such-job", code=1)
    assert "--timeout" in working.error_line("watch", "--timeout", "soon", code=2)
    assert working.rows("watch", good)[-1] == working.rows("show", good)[0]


@covers("logs")
def test_logs(working: StoreFixture) -> None:
    job_id = working.call("submit", "broken", "alas").strip()
    assert "about to fail" in working.call("logs", "-f", job_id)
    [line] = working.rows("logs")
    assert (line["job_id"], line["text"], line["level"]) == (job_id, "about to fail", "info")


@covers("failures")
def test_failures_are_grouped_with_usable_filter(working: StoreFixture) -> None:
    for words in (("a",), ("b",), ("c", "kind=key")):
        working.call("submit", "broken", *words, "--watch", code=1)
    groups = working.rows("failures")
    assert [(group["count"], group["group"].partition("@")[0]) for group in groups] == [
        (2, "ValueError"),
        (1, "KeyError"),
    ]
    assert len(working.rows("ls", *groups[0]["q"].split())) == 2
    assert groups[0]["message"] == "b"
    assert "ValueError@sample_app.py" in working.call("failures")


@covers("stats")
def test_stats(filled: StoreFixture) -> None:
    [generic] = filled.rows("stats")
    counts = {name: generic[name] for name in ("total", "pending", "running", "completed", "failed", "cancelled")}
    assert counts == {"total": 5, "pending": 1, "running": 1, "completed": 1, "failed": 1, "cancelled": 1}
    assert generic["success"] == 0.5
    assert "50%" in filled.call("stats", "created:1d")


@covers("types", "types pause", "types resume", "types limit")
def test_types_list_pause_resume_limit(working: StoreFixture) -> None:
    assert {known["name"] for known in working.rows("types")} == {"count", "deaf", "broken", "gentle", "leave"}
    assert "N [pause=...] [note=...]" in working.call("types")
    assert "paused" in working.call("types", "pause", "count")
    job_id = working.call("submit", "count", "1").strip()
    working.call("watch", job_id, "--timeout", "0.5", code=124)
    if not working.is_server:  # a server forecasts single jobs only
        assert "Type count is paused" in working.call("ls")
    assert working.rows("types", "resume", "count")[0]["paused"] is False
    working.call("watch", job_id, "--timeout", "60", code=0)
    assert working.rows("types", "limit", "count", "2")[0]["limit"] == 2
    for command, paused in (("pause", True), ("resume", False)):
        [known] = working.rows("types", command, "count")
        assert (known["limit"], known["paused"]) == (2, paused)
    assert working.rows("types", "limit", "count", "none")[0]["limit"] is None
    assert "published 'nothing' (published: broken, count, deaf, gentle" in working.error_line(
        "types", "pause", "nothing", code=2
    )


@covers("workers")
def test_workers(working: StoreFixture) -> None:
    assert set(working.rows("workers")[0]["types"]) == {"count", "deaf", "broken", "gentle", "leave"}
    [line] = working.call("workers").splitlines()[1:]
    assert "idle" in line
    assert "count, deaf, broken, gentle" in line


@covers("top")
def test_top(filled: StoreFixture) -> None:
    pytest.importorskip("textual")
    terminal = filled.on_terminal("top", "status:running")
    terminal.wait_for("message of c-now")
    terminal.press("c")
    terminal.wait_for("No jobs match")
    terminal.press("q")
    assert terminal.finish() == 0
    assert filled.rows("show", "c-now")[0]["status"] == "cancelled"


# --- change


@covers("cancel")
def test_cancel(filled: StoreFixture) -> None:
    assert "cancel 2 jobs (1 pending, 1 running)" in filled.error_line("cancel", "label.owner:ana", code=2)
    filled.call("cancel", "-", stdin=filled.call("ls", "id:c-now") + "\n")
    assert [job["job_id"] for job in filled.rows("ls", "is:active")] == ["d-next"]
    filled.call("cancel", "label.owner:ana", "--yes", "--reason", "enough")
    assert filled.rows("ls", "is:active") == []
    assert filled.rows("show", "d-next")[0]["receipt"]["reason"] == "enough"
    assert "Cannot cancel job with status completed" in filled.error_line("cancel", "a-done", code=1)
    assert "unknown key 'stauts'" in filled.error_line("cancel", "stauts:running", "--yes", code=2)
    assert "@last is the newest" in filled.error_line("cancel", "@first", code=2)
    assert filled.run("cancel", "-").stderr == "milepost: no job ids on stdin\n"


@covers("cancel")
def test_cancel_wait_returns_after_receipt(working: StoreFixture) -> None:
    long = working.call("submit", "count", "100000").strip()
    until(lambda: working.rows("show", long)[0]["status"] == "running")
    [cancelled] = working.rows("cancel", long, "--wait")
    receipt = cancelled["receipt"]
    assert (cancelled["status"], receipt["confirmed"], receipt["how"]) == ("cancelled", True, "cooperative")


@covers("retry")
def test_retry_returns_worker_jobs_to_pending(working: StoreFixture) -> None:
    working.call("types", "pause", "count")
    job_id = working.call("submit", "count", "1").strip()
    working.call("cancel", job_id)
    assert working.rows("retry", job_id)[0]["status"] == "pending"
    working.call("cancel", job_id)
    assert "retry 1 job (1 cancelled)" in working.error_line("retry", "status:cancelled", code=2)
    working.call("retry", "status:cancelled", "--yes")
    assert working.rows("show", job_id)[0]["status"] == "pending"
    assert "Cannot retry job" in working.error_line("retry", job_id, code=1)


@covers("rm")
def test_rm_counts_first(filled: StoreFixture) -> None:
    assert "delete 2 jobs (1 completed, 1 failed)" in filled.call("rm", "--dry-run", "id:a-")
    assert "confirm with --yes" in filled.error_line("rm", "a-done", code=2)
    assert "Deleted 2 jobs" in filled.call("rm", "id:a-", "--yes")
    assert len(filled.rows("ls")) == 3


@covers("rm")
def test_rm_continues_after_a_refusal(filled: StoreFixture) -> None:
    with filled.manager() as manager:
        jobs = Jobs(manager.store, options=manager.settings)

        @jobs.job("leaf")
        def leaf(run: Run) -> None:
            run.sleep("long", "1h")

        @jobs.job("root")
        def root(run: Run) -> None:
            for key in "ab":
                run.submit_child(key, leaf)
            run.join()

        with jobs.run_workers():
            parent = jobs.submit(root).job_id
            until(lambda: jobs.count_jobs("leaf") == 2)
    leaves = [job["job_id"] for job in filled.rows("ls", f"parent:{parent}")]
    refused = filled.run("rm", leaves[0], "a-done", "--yes")
    assert (refused.returncode, refused.stdout) == (1, "Deleted 1 job.\n")
    assert refused.stderr.startswith(f"milepost: Cannot delete job {leaves[0]}: it is a child of job {parent}, ")
    assert filled.call("rm", *leaves, parent, "--yes") == "Deleted 3 jobs.\n"
    assert len(filled.rows("ls")) == 4


# --- documents


# --- look after


@covers("doctor", "migrate", "purge")
def test_doctor_migrate_and_purge(filled: StoreFixture) -> None:
    done = filled.run("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["layout"] == 1
    assert found["kind"] in ("sqlite", "redis", "valkey")
    assert done.returncode == (1 if found["warnings"] else 0)
    shown = filled.run("doctor").stdout
    assert all(warning in shown for warning in found["warnings"])
    if filled.is_server:
        assert "pass the store URL with --url" in filled.error_line("migrate", code=2)
        assert "pass the store URL" in filled.error_line("purge", "--older-than", "0", code=2)
        assert filled.rows("purge") == [{"purged": 0}]
    else:
        assert filled.rows("migrate") == [{"from": 1, "to": 1, "moved": False}]
        assert filled.rows("purge") == [{"purged": 0}]
        assert filled.rows("purge", "--older-than", "0") == [{"purged": 3}]
        assert {job["job_id"] for job in filled.rows("ls")} == {"c-now", "d-next"}


@covers("keys", "keys create", "keys revoke")
def test_keys(where: StoreFixture) -> None:
    if not where.is_server:
        keys_are_made_listed_and_revoked(where)
        return
    assert where.error_line("keys", "create", "ci", code=1).endswith("with the store's URL\n")
    with where.manager() as manager:
        _, where.environment["MILEPOST_KEY"] = run_sync(ApiKeyStore(manager.store).create("admin", ["admin"]))
    with where.served(auth.api_keys()):
        keys_are_made_listed_and_revoked(where)


def keys_are_made_listed_and_revoked(where: StoreFixture) -> None:
    others = len(where.rows("keys"))
    options = ("--scope", "jobs:cancel", "--scope", "jobs:read", "--types", "a, b", "--types", "c", "--expires-in", "30d")  # fmt: skip
    key = where.call("keys", "create", "ci", *options).strip()
    assert re.fullmatch(r"mp_[0-9a-f]+_\S+", key)
    [listed] = [one for one in where.rows("keys") if one["name"] == "ci"]
    assert (listed["scopes"], listed["types"]) == (["jobs:cancel", "jobs:read"], ["a", "b", "c"])
    assert "active" in where.call("keys")
    where.call("keys", "revoke", listed["id"])
    assert [one["revoked_at"] is not None for one in where.rows("keys") if one["name"] == "ci"] == [True]
    assert len(where.rows("keys")) == others + 1
    assert "milepost keys lists all keys" in where.error_line("keys", "revoke", "unknown", code=1)
    assert "--types" in where.error_line("keys", "create", "x", "--types", ",", code=2)


@covers("completion")
def test_completion_suggests_job_ids(filled: StoreFixture) -> None:
    assert "_MILEPOST_COMPLETE=bash_complete" in filled.call("completion", "bash")
    shell = {"_MILEPOST_COMPLETE": "bash_complete", "COMP_WORDS": "milepost show a-", "COMP_CWORD": "2"}
    completed = filled.run(**shell).stdout
    assert {line.partition(",")[2] for line in completed.splitlines()} == {"a-done", "a-bad"}


@covers("pause", "resume", "answer")
def test_pause_resume_and_answer(working: StoreFixture) -> None:
    job_id = working.call("submit", "count", "1", "--delay", "1h").strip()
    assert working.call("pause", job_id) == f"{job_id}  Paused; it has not started yet\n"
    assert "it is paused" in working.error_line("pause", job_id, code=1)
    assert "Paused" not in working.call("resume", job_id)
    assert "it is not paused" in working.error_line("resume", job_id, code=1)
    working.call("answer", job_id, "publish", '{"approved": true}')
    working.call("answer", job_id, "note", "plain text")
    assert "question 'publish' was answered" in working.error_line("answer", job_id, "publish", "false", code=1)
    [job] = working.rows("show", job_id)
    given = {one["key"]: (one["state"], one["answer"]) for one in job["questions"]}
    assert given == {"publish": ("early", {"approved": True}), "note": ("early", "plain text")}
