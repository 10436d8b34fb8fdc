"""Each command on each place: a SQLite file, Redis, a server. `drives` says which test does; none may be without one.

What cannot be on a server says so in one line, with the remedy: `worker`, since it needs the store itself; `serve`, since
it would serve a server; `migrate`, since a server's store is moved where it is; `draw`, unless it is told which documents.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from milepost.cli.program import program
from milepost.documents.jobs import HANDLERS
from tests.cli.places import APP, DRIVEN, Place, drives
from tests.cli.programs import until
from tests.documents.watched_run import WatchedRun
from tests.services import free_port


def commands(group: click.Group, *path: str) -> Iterator[str]:
    """The commands of a group and of the groups in it, as they are typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield " ".join((*path, name))
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


def test_no_command_is_without_a_test_on_every_place() -> None:
    assert sorted(DRIVEN) == sorted(commands(program))


# --- run


@drives("run")
def test_run(working: Place) -> None:
    app = () if working.is_server else ("--app", APP)
    out = working.call("run", *app, "count", "4", "note=hello")
    assert "counted  4" in out
    [job] = working.rows("ls")
    assert (job["status"], job["progress"], job["result"]["counted"]) == ("completed", 1.0, 4)
    assert f"milepost show {job['job_id']}" in out
    again = re.search(r"(\S.*\S) +goes on where it was", working.call("run", *app, "broken", "alas", code=1))
    assert again is not None
    assert again[1].startswith("milepost retry" if working.is_server else "the same command")
    ended = working.run("run", *app, "broken", "alas", "--json").stdout.splitlines()[-1]
    assert json.loads(ended)["error"] == "alas"


@drives("submit")
def test_submit(working: Place) -> None:
    job_id = working.call("submit", "count", "3", "--label", "owner=ana", "--priority", "7").strip()
    working.call("watch", job_id)
    [job] = working.rows("show", job_id)
    assert (job["labels"], job["priority"], job["result"]["counted"]) == ({"owner": "ana"}, 7, 3)
    working.call("submit", "broken", "alas", "--watch", code=1)
    later = working.call("submit", "count", "1", "--delay", "2h", "--key", "k").strip()
    assert working.call("submit", "count", "2", "--key", "k").strip() == later
    assert later in working.complaint("submit", "count", "2", "--key", "k", "--on-duplicate", "refuse", code=1)
    assert working.rows("show", later)[0]["not_before"] is not None
    assert "usage: milepost submit count" in working.complaint("submit", "count", code=2)


@drives("worker")
def test_worker(where: Place) -> None:
    if where.is_server:
        assert "a worker needs the store itself; give it with --url" in where.complaint("worker", APP, code=2)
        return
    worker = where.start("worker", APP, "-c", "2")
    until(lambda: where.rows("workers"))
    where.call("submit", "count", "2", "--watch")
    worker.signal(signal.SIGTERM)
    code, out, _ = worker.finish()
    assert code == 0
    assert [json.loads(line).get("event") for line in out.splitlines()].count("completed") == 1


@drives("serve")
def test_serve(where: Place) -> None:
    if where.is_server:
        assert "is a server already; give a store with --url" in where.complaint("serve", code=2)
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
def filled(where: Place) -> Place:
    """One job of each status."""
    for job_id, status in (("a-done", "completed"), ("a-bad", "failed"), ("b-gone", "cancelled"), ("c-now", "running")):
        where.fill(job_id, status)
    where.fill("d-next", None)
    return where


@drives("ls")
def test_ls_in_a_pipe_is_aligned_and_whole(filled: Place) -> None:
    lines = filled.call("ls").splitlines()
    assert lines[0].split() == ["ID", "TYPE", "STATUS", "%", "CREATED", "MESSAGE"]
    assert [line.split()[0] for line in lines[1:]] == ["d-next", "c-now", "b-gone", "a-bad", "a-done"]
    assert "\x1b" not in "".join(lines)
    assert len({line.index(" generic ") for line in lines[1:]}) == 1
    assert all(line == line.rstrip() for line in lines)


@drives("ls")
def test_ls_takes_filters(filled: Place) -> None:
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
    assert "'foo' is not a status" in filled.complaint("ls", "status:foo", code=2)


@drives("ls")
def test_ls_w_in_a_pipe_is_a_line_for_each_change(working: Place) -> None:
    working.fill("a-now", "running")
    out = working.start("ls", "-w", "--json").process.stdout
    assert out is not None
    lines = (json.loads(line) for line in out)
    assert next(lines)["job_id"] == "a-now"
    job_id = working.call("submit", "count", "3").strip()
    ended = next(job for job in lines if job["status"] == "completed")
    assert (ended["job_id"], ended["result"]["counted"]) == (job_id, 3)


@drives("show")
def test_show(filled: Place) -> None:
    assert filled.rows("show", "b")[0]["job_id"] == "b-gone"
    assert filled.rows("show", "@last")[0]["job_id"] == "d-next"
    assert "a-bad, a-done" in filled.complaint("show", "a-", code=2)
    assert "milepost ls" in filled.complaint("show", "x", code=1)
    assert "not found" in filled.complaint("show", "ffffffff", code=1)
    shown = filled.call("show", "a-bad")
    for part in ("generic", "a-bad", "failed", "47 %", "message of a-bad", "owner=ana", "title of a-bad"):
        assert part in shown
    assert "milepost rm a-bad" in shown
    assert re.search(r"created +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d", shown)
    assert re.search(r"created .*UTC", filled.call("show", "a-bad", "--utc"))


@drives("watch")
def test_the_exit_code_of_watch_says_how_jobs_ended(working: Place) -> None:
    good = working.call("submit", "count", "3").strip()
    also_good = working.call("submit", "count", "4").strip()
    bad = working.call("submit", "broken", "alas").strip()
    long = working.call("submit", "count", "100000").strip()
    working.call("watch", good, also_good, code=0)
    working.call("watch", good, bad, code=1)
    assert "the jobs go on" in working.complaint("watch", long, "--timeout", "0.5", code=124)
    working.call("cancel", long, "--wait")
    working.call("watch", good, long, code=3)
    working.call("watch", bad, long, code=1)
    assert "not found" in working.complaint("watch", "no-such-job", code=1)
    assert "--timeout" in working.complaint("watch", "--timeout", "soon", code=2)
    assert working.rows("watch", good)[-1] == working.rows("show", good)[0]


@drives("logs")
def test_logs(working: Place) -> None:
    job_id = working.call("submit", "broken", "alas").strip()
    assert "about to fail" in working.call("logs", "-f", job_id)
    [line] = working.rows("logs")
    assert (line["job_id"], line["text"], line["level"]) == (job_id, "about to fail", "info")


@drives("failures")
def test_failures_are_grouped_and_their_filter_works(working: Place) -> None:
    for words in (("a",), ("b",), ("c", "kind=key")):
        working.call("submit", "broken", *words, "--watch", code=1)
    groups = working.rows("failures")
    assert [(group["count"], group["group"].partition("@")[0]) for group in groups] == [
        (2, "ValueError"),
        (1, "KeyError"),
    ]
    assert len(working.rows("ls", *groups[0]["filter"].split())) == 2
    assert groups[0]["message"] == "b"
    assert "ValueError@work.py" in working.call("failures")


@drives("stats")
def test_stats(filled: Place) -> None:
    [generic] = filled.rows("stats")
    counts = {name: generic[name] for name in ("total", "pending", "running", "completed", "failed", "cancelled")}
    assert counts == {"total": 5, "pending": 1, "running": 1, "completed": 1, "failed": 1, "cancelled": 1}
    assert generic["success"] == 0.5
    assert "50 %" in filled.call("stats", "created:1d")


@drives("types", "types pause", "types resume", "types limit")
def test_types_are_listed_paused_resumed_and_limited(working: Place) -> None:
    assert {known["name"] for known in working.rows("types")} == {"count", "deaf", "broken", "gentle"}
    assert "N [pause=...] [note=...]" in working.call("types")
    assert "paused" in working.call("types", "pause", "count")
    job_id = working.call("submit", "count", "1").strip()
    working.call("watch", job_id, "--timeout", "0.5", code=124)
    assert working.rows("types", "resume", "count")[0]["paused"] is False
    working.call("watch", job_id, "--timeout", "60", code=0)
    assert working.rows("types", "limit", "count", "2")[0]["limit"] == 2
    assert working.rows("types", "limit", "count", "none")[0]["limit"] is None
    assert "published 'nothing' (published: broken, count, deaf, gentle" in working.complaint(
        "types", "pause", "nothing", code=2
    )


@drives("workers")
def test_workers(working: Place) -> None:
    assert set(working.rows("workers")[0]["types"]) == {"count", "deaf", "broken", "gentle"}
    [line] = working.call("workers").splitlines()[1:]
    assert "idle" in line
    assert "count, deaf, broken, gentle" in line


@drives("top")
def test_top(filled: Place) -> None:
    pytest.importorskip("textual")
    terminal = filled.on_terminal("top", "status:running")
    terminal.wait_for("message of c-now")
    terminal.press("c")
    terminal.wait_for("Nothing matches")
    terminal.press("q")
    assert terminal.finish() == 0
    assert filled.rows("show", "c-now")[0]["status"] == "cancelled"


# --- change


@drives("cancel")
def test_cancel(filled: Place) -> None:
    assert "cancel 2 jobs (1 pending, 1 running)" in filled.complaint("cancel", "label.owner:ana", code=2)
    filled.call("cancel", "-", stdin=filled.call("ls", "id:c-now") + "\n")
    assert [job["job_id"] for job in filled.rows("ls", "is:active")] == ["d-next"]
    filled.call("cancel", "label.owner:ana", "--yes", "--reason", "enough")
    assert filled.rows("ls", "is:active") == []
    assert filled.rows("show", "d-next")[0]["receipt"]["reason"] == "enough"
    assert "Cannot cancel job with status completed" in filled.complaint("cancel", "a-done", code=1)
    assert "'stauts' is not a key" in filled.complaint("cancel", "stauts:running", "--yes", code=2)
    assert "@last is the newest" in filled.complaint("cancel", "@first", code=2)
    assert filled.run("cancel", "-").stderr == "milepost: no ids on stdin\n"


@drives("cancel")
def test_cancel_waits_for_the_receipt(working: Place) -> None:
    long = working.call("submit", "count", "100000").strip()
    until(lambda: working.rows("show", long)[0]["status"] == "running")
    [cancelled] = working.rows("cancel", long, "--wait")
    receipt = cancelled["receipt"]
    assert (cancelled["status"], receipt["confirmed"], receipt["how"]) == ("cancelled", True, "cooperative")


@drives("retry")
def test_retry_sends_back_what_workers_run(working: Place) -> None:
    working.call("types", "pause", "count")
    job_id = working.call("submit", "count", "1").strip()
    working.call("cancel", job_id)
    assert working.rows("retry", job_id)[0]["status"] == "pending"
    working.call("cancel", job_id)
    assert "retry 1 job (1 cancelled)" in working.complaint("retry", "status:cancelled", code=2)
    working.call("retry", "status:cancelled", "--yes")
    assert working.rows("show", job_id)[0]["status"] == "pending"
    assert "Cannot retry job" in working.complaint("retry", job_id, code=1)


@drives("rm")
def test_rm_counts_first(filled: Place) -> None:
    assert "delete 2 jobs (1 completed, 1 failed)" in filled.call("rm", "--dry-run", "id:a-")
    assert "add --yes" in filled.complaint("rm", "a-done", code=2)
    assert "Deleted 2 jobs" in filled.call("rm", "id:a-", "--yes")
    assert len(filled.rows("ls")) == 3


# --- documents


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents with entities and communities."""
    folder = tmp_path_factory.mktemp("library")
    names = ("Ada Lovelace", "Alan Turing", "Charles Babbage", "Grace Hopper")
    (folder / "a.txt").write_text("\n\n".join(f"{one} wrote to {two}." for one in names for two in names if one < two))
    database = str(folder / "documents.db")
    HANDLERS["ingestion"](WatchedRun(), [str(folder / "a.txt")], database=database, model="hashing:64", chunk_tokens=16)
    HANDLERS["extraction"](WatchedRun(), database=database, extractor="rules")
    HANDLERS["clustering"](WatchedRun(), database=database, of="chunks")
    return Path(database)


@drives("search", "entities", "neighbours", "communities", "draw")
def test_the_documents_of_the_place_are_asked(where: Place, library: Path) -> None:
    shutil.copy(library, where.documents)
    assert "a.txt" in where.call("search", "Ada Lovelace", "-k", "1")
    assert "Ada Lovelace" in [entity["name"] for entity in where.rows("entities", "lovelace")]
    assert where.rows("neighbours", "Ada", "Lovelace")[0]["hops"] == 1
    assert where.rows("communities", "--of", "chunks")[0]["size"] > 0
    assert "milepost run clustering of=entities" in where.call("communities")
    named: tuple[str, ...] = ()
    if where.is_server:
        for command in (("entities",), ("neighbours", "Ada"), ("communities",)):
            assert "--limit: a server gives at most 1,000; --database" in where.complaint(
                *command, "-n", "1001", code=2
            )
        assert "questions of at most 2,000 characters" in where.complaint("search", "a" * 2001, code=2)
        for command in (("search",), ("ls",)):
            assert "the words of a command must be UTF-8" in where.complaint(*command, "\udcff", code=2)
        assert "--database" in where.complaint("draw", "graph.svg", code=2)
        named = ("--database", str(library))
    where.call("draw", "graph.svg", *named)
    assert (where.folder / "graph.svg").read_text().startswith("<svg ")


# --- look after


@drives("doctor", "migrate", "purge")
def test_the_store_is_looked_after(filled: Place) -> None:
    done = filled.run("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["layout"] == 1
    assert found["kind"] in ("sqlite", "redis", "valkey")
    assert done.returncode == (1 if found["warnings"] else 0)
    shown = filled.run("doctor").stdout
    assert all(warning in shown for warning in found["warnings"])
    if filled.is_server:
        assert "give the store with --url" in filled.complaint("migrate", code=2)
        assert "give its store" in filled.complaint("purge", "--older-than", "0", code=2)
        assert filled.rows("purge") == [{"purged": 0}]
    else:
        assert filled.rows("migrate") == [{"from": 1, "to": 1, "moved": False}]
        assert filled.rows("purge") == [{"purged": 0}]
        assert filled.rows("purge", "--older-than", "0") == [{"purged": 3}]
        assert {job["job_id"] for job in filled.rows("ls")} == {"c-now", "d-next"}


@drives("keys", "keys create", "keys revoke")
def test_keys(where: Place) -> None:
    key = where.call("keys", "create", "ci", "--scope", "jobs:read", "--expires-in", "30d").strip()
    assert re.fullmatch(r"mp_[0-9a-f]+_\S+", key)
    [listed] = where.rows("keys")
    assert listed["scopes"] == ["jobs:read"]
    assert "good" in where.call("keys")
    where.call("keys", "revoke", listed["id"])
    assert where.rows("keys")[0]["revoked_at"] is not None
    assert "milepost keys lists them" in where.complaint("keys", "revoke", "nobody", code=1)


@drives("completion")
def test_completion_knows_live_ids(filled: Place) -> None:
    assert "_MILEPOST_COMPLETE=bash_complete" in filled.call("completion", "bash")
    shell = {"_MILEPOST_COMPLETE": "bash_complete", "COMP_WORDS": "milepost show a-", "COMP_CWORD": "2"}
    completed = filled.run(**shell).stdout
    assert {line.partition(",")[2] for line in completed.splitlines()} == {"a-done", "a-bad"}
