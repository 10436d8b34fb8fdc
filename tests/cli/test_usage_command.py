"""`milepost usage`, on every kind of store."""

from __future__ import annotations

from tests.cli.stores_fixture import StoreFixture, covers


@covers("usage")
def test_usage_is_shown_by_type_label_and_job(working: StoreFixture) -> None:
    assert "Nothing was spent from" in working.call("usage")
    with working.manager() as manager:
        job = manager.create_job("x")
    assert working.call("usage", job.job_id) == f"Job {job.job_id} has spent nothing.\n"
    with working.manager() as manager:
        for tenant, tokens in (("acme", 812), ("zoo", 1000)):
            with manager.track("chat", labels={"tenant": tenant}) as run:
                run.add_usage(tokens=tokens, usd=0.0041)
    (report,) = working.rows("usage", "--by", "label:tenant", "--type", "chat")
    assert report["groups"] == {"acme": {"tokens": 812, "usd": 0.0041}, "zoo": {"tokens": 1000, "usd": 0.0041}}
    table = [line.split() for line in working.call("usage", "--by", "label:tenant").splitlines()]
    assert table == [["TENANT", "TOKENS", "USD"], ["acme", "812", "0.0041"], ["zoo", "1,000", "0.0041"], ["total", "1,812", "0.0082"]]  # fmt: skip
    (one,) = working.rows("usage", run.job_id)
    assert one == {"job_id": run.job_id, "own": report["groups"]["zoo"], "descendants": {}, "total": report["groups"]["zoo"], "budget": {}, "on_budget": None}  # fmt: skip
    assert "by: 'x' must be type, day or label:NAME" in working.error_line("usage", "--by", "x", code=2)
