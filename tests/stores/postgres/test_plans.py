"""What a claim reads does not depend on the number of waiting jobs, even if the server's statistics are behind; its plan is kept."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from milepost.core import transitions as plans
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.postgres import PostgresStore
from milepost.stores.postgres.claims import asked_queues
from milepost.stores.postgres.connection import PREPARE_THRESHOLD
from milepost.stores.protocol import Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import worker_job
from tests.postgres_server import PostgresServer
from tests.stores.postgres.rows_read import rows_read

pytestmark = pytest.mark.service("postgresql")
WAITING = 1000
FAR = str(2**53)  # in the year 2255
ASKED = asked_queues(Claim("w", {"q": None}, (), "op"))


@pytest.fixture
def store(postgres_server: PostgresServer) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_server.url(), namespace=postgres_server.emptied("plans"))
    yield store
    run_sync(store.close())


def create(store: PostgresStore, numbers: range = range(WAITING), **fields: str) -> None:
    """Create jobs of the queue q, unless they are there."""
    job = worker_job(**fields)
    run_sync(store.apply([Write(f"{n}", plans.plan_create(job, new_operation_id()), answer=False) for n in numbers]))


def test_claim_reads_only_the_jobs_that_it_may_start(store: PostgresStore, postgres_server: PostgresServer) -> None:
    create(store)
    request = {**ASKED, "most": 10, "more": 0, "refused": []}
    assert rows_read(store, postgres_server.url(), "claim_next", **request) == 10


def test_claim_reads_no_job_that_is_not_due(store: PostgresStore, postgres_server: PostgresServer) -> None:
    """With 10,000 jobs that start later, each claim took 100 ms."""
    create(store, range(20), not_before=FAR)
    postgres_server.execute("ANALYZE")
    create(store, not_before=FAR)
    rows = partial(rows_read, store, postgres_server.url(), **ASKED)
    in_claim = ("patience", "claim_plans")
    assert rows("claim_promote", in_claim, promoted=500) <= 1
    assert rows("claim_next_due", in_claim) <= 1
    assert rows("work", ("claim_plans",), most=1, worker="w") <= 1


def test_statements_of_writes_and_claims_are_planned_once(store: PostgresStore) -> None:
    """A claim was planned each time, which took longer than to run it."""
    for number in range(2 * PREPARE_THRESHOLD):
        run_sync(store.apply([Write(f"{number}", plans.plan_create(worker_job(), new_operation_id()))]))
        start = plans.plan_start(new_operation_id(), nonce=new_nonce(), lease=30_000_000, worker="w")
        claim = Claim("w", {"q": None}, (start,), new_operation_id(), number=number + 1)
        assert len(run_sync(store.apply([], claim)).claimed) == 1
    connection = store._db.pool.idle()
    assert connection is not None
    (rows,) = run_sync(
        connection.run(("SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements", None))
    )
    run_sync(connection.close())
    assert any("FOR UPDATE OF r SKIP LOCKED" in statement and generic for statement, generic, _ in rows)
    anew = [statement for statement, _, custom in rows if custom]
    assert all(statement.startswith("SELECT set_config") for statement in anew), "others follow that setting"
