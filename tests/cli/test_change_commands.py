"""The commands that change jobs, on every kind of store."""

from __future__ import annotations

from milepost import Jobs, Run
from tests.cli.stores_fixture import StoreFixture, covers
from tests.cli.subprocesses import until


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
    until(lambda: working.rows("show", long)[0]["progress"] > 0)  # its code has begun
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


@covers("submit")
def test_submit_after_bad_groups_creates_nothing(working: StoreFixture) -> None:
    with working.manager() as manager:
        manager.create_job("a", group="import")
    for entry, problem in (
        ("job:b", "after: there is no job 'b'; submit it first"),
        ("group:Import", "after: no job is in the group 'Import'; submit its members first"),
        ("jobs:a", "after: 'jobs:a' must begin with job: or children: or group:, for example job:a"),
    ):
        assert problem in working.run("submit", "count", "1", "--after", "job:a", "--after", entry).stderr
    refused = working.run("submit", "count", "1", "--group", "import", "--after", "group:import")
    assert refused.returncode != 0
    assert "would never close: the job itself is a member of it; omit it" in refused.stderr
    assert [job["job_id"] for job in working.rows("ls")] == ["a"]
