"""A write whose values cannot be stored does not keep back what the writes beside it bring about."""

from __future__ import annotations

import pytest

from milepost.core.transitions import plan_cancel, plan_create
from milepost.stores.factory import open_store
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import INVALID_VALUE_ERRORS, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.groups import after
from milepost.testing.conformance.harness import worker_job


@pytest.mark.parametrize("kind", ["sqlite_url", "postgres_url"])
def test_invalid_write_keeps_no_job_held(kind: str, namespace: str, request: pytest.FixtureRequest) -> None:
    """On PostgreSQL such a write left jobs held, which the other writes had released, until a sweep."""
    store = open_store(request.getfixturevalue(kind), namespace=namespace)
    follower = after("first", on_failure="run")
    for job_id, fields in (("first", worker_job()), ("then", follower)):
        run_sync(store.apply([Write(job_id, plan_create(fields, new_operation_id()))]))
    invalid = plan_create(worker_job(message="\ud800"), new_operation_id())
    with pytest.raises(INVALID_VALUE_ERRORS):
        run_sync(store.apply([Write("first", plan_cancel(new_operation_id())), Write("invalid", invalid)]))
    job = run_sync(store.get("then"))
    assert job is not None
    assert job.waiting_for is None
    assert run_sync(store.get("invalid")) is None
    run_sync(store.close())
