"""The plan of a claim does not depend on the number of waiting jobs, even if the server's statistics are behind."""

from __future__ import annotations

import psycopg
import pytest

from milepost.core import transitions as plans
from milepost.stores.factory import open_store
from milepost.stores.ids import new_operation_id
from milepost.stores.postgres.claims import asked_queues
from milepost.stores.protocol import Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import worker_job
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")
WAITING = 1000


def test_claim_reads_only_the_jobs_that_it_may_start(postgres_server: PostgresServer) -> None:
    store = open_store(postgres_server.url(), namespace="plans", blocking=True)
    writes = [Write(f"{n}", plans.plan_create(worker_job(), new_operation_id()), answer=False) for n in range(WAITING)]
    run_sync(store.apply(writes))
    most = 10
    request = {**asked_queues(Claim("w", {"q": None}, (), "op")), "most": most, "more": 0, "refused": []}
    namespace = store._namespace  # type: ignore[attr-defined]
    sql, values = namespace.call("claim_next", request)
    with psycopg.connect(postgres_server.url()) as connection:
        connection.execute(*namespace.call("patience", {"patience": "1000"}))
        (plan,) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values).fetchone() or ([],)
        connection.execute('DROP SCHEMA "plans" CASCADE')
    run_sync(store.close())
    found = str(plan)
    rows = [int(float(part.split(",")[0])) for part in found.split("'Actual Rows': ")[1:]]
    assert max(rows) == most, f"a step of the plan read {max(rows)} rows"
