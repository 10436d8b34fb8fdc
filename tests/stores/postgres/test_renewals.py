"""Renewals of leases, the most frequent of all writes, are HOT: the new row is on the page of the old one, and no index gets an entry."""

from __future__ import annotations

import pytest

from milepost.core import transitions as plans
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.postgres import PostgresStore
from milepost.stores.protocol import Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import LONG, worker_job
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service("postgresql")
LEASES, RENEWALS = 100, 20


def test_renewals_add_no_entries_to_indexes(postgres_server: PostgresServer, namespace: str) -> None:
    store = PostgresStore(postgres_server.url(), namespace=namespace)
    names = [str(number) for number in range(LEASES)]
    run_sync(store.apply([Write(name, plans.plan_create(worker_job(), new_operation_id())) for name in names]))
    starts = tuple(plans.plan_start(new_operation_id(), nonce=new_nonce(), lease=LONG, worker="w") for _ in names)
    claimed = run_sync(store.apply([], Claim("w", {"q": None}, starts, new_operation_id()))).claimed
    leases = [(job.job_id, job.record["token"]) for job in claimed]
    assert len(leases) == LEASES

    def renew() -> float:
        """Renew the leases many times, and return which part of the updates was HOT."""
        before = updates()
        for _ in range(RENEWALS):
            assert set(run_sync(store.renew(leases, LONG))) == {"live"}
        run_sync(store.close())  # ends the session, which counts them then
        until(lambda: updates()[0] >= before[0] + LEASES * RENEWALS)
        return (updates()[1] - before[1]) / (LEASES * RENEWALS)

    def updates() -> tuple[int, int]:
        """Return the updates of leases, and those that were HOT."""
        ((every, hot),) = postgres_server.fetch(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
            f"WHERE schemaname = '{namespace}' AND relname = 'leases'"
        )
        return every, hot

    assert renew() > 0.95
    postgres_server.execute(f'CREATE INDEX ON "{namespace}".leases (expires)')
    assert renew() == 0, "this is measured"
    postgres_server.execute(f'DROP SCHEMA "{namespace}" CASCADE')
