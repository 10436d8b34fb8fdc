"""Records are read as they are once they are locked, not as in the snapshot of a statement that locks them later."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import psycopg
import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.postgres import PostgresStore
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part, Transaction
from milepost.stores.protocol import Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import LONG, worker_job
from tests.postgres_server import PostgresServer
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.service("postgresql")
WAIT = "WITH waited AS MATERIALIZED (SELECT pg_advisory_xact_lock(99)), open AS ("
"""A beginning of a claim that waits after its snapshot, and before it locks a record."""


@pytest.fixture
def store(postgres_server: PostgresServer) -> Iterator[PostgresStore]:
    """Yield an empty store that waits long for a lock."""
    namespace = postgres_server.emptied("snapshots")
    store = PostgresStore(postgres_server.url(), namespace=namespace, patience=PATIENCE)
    yield store
    run_sync(store.close())


def claim(store: PostgresStore) -> list[Job]:
    """Start one job."""
    starts = (plans.plan_start(new_operation_id(), nonce=new_nonce(), lease=LONG, worker="w"),)
    return run_sync(store.apply([], Claim("w", {"q": None}, starts, new_operation_id()))).claimed


def is_waiting(server: PostgresServer) -> bool:
    """Return whether a transaction waits for a lock."""
    return bool(server.fetch("SELECT 1 FROM pg_locks WHERE NOT granted"))


def test_change_between_snapshot_and_lock_of_a_claim_is_kept(
    store: PostgresStore, postgres_server: PostgresServer
) -> None:
    """Regression: the question of a descendant to a job that was just being started was lost."""
    run_sync(store.apply([Write("a", plans.plan_create(worker_job(), new_operation_id()))]))
    statements = store._namespace.sql
    waiting = statements["claim_next"].replace("WITH open AS (", WAIT, 1)
    statements._texts["claim_next"] = waiting.replace("FROM unnest(", "FROM waited CROSS JOIN unnest(", 1)
    claimed: list[Job] = []
    thread = threading.Thread(target=lambda: claimed.extend(claim(store)))
    with psycopg.connect(postgres_server.url()) as lock:
        lock.execute("SELECT pg_advisory_xact_lock(99)")
        thread.start()
        until(lambda: is_waiting(postgres_server))
        question = plans.plan_ask_from_below(
            new_operation_id(), version="", questions='["raise the budget?"]', data="{}"
        )
        assert run_sync(store.apply([Write("a", question)])).outcomes[0].accepted
    thread.join(PATIENCE)
    assert [job.record.get("questions") for job in claimed] == ['["raise the budget?"]']
    events = run_sync(store.events("a"))
    assert [(event.version, event.kind) for event in events] == [(1, "created"), (2, "asked"), (3, "running")]


def test_run_whose_lease_ends_meanwhile_creates_no_child(store: PostgresStore, postgres_server: PostgresServer) -> None:
    """Regression: a child was accepted that had waited for the cancel, or the loss, of the run that submitted it."""
    run_sync(store.apply([Write("parent", plans.plan_create(worker_job(), new_operation_id()))]))
    (parent,) = claim(store)
    child = {**worker_job(), "child_key": "k", "labels": ":parent_id=parent"}
    create = plans.plan_create(child, new_operation_id(), run=("parent", parent.record["token"]))
    accepted: list[bool] = []
    thread = threading.Thread(
        target=lambda: accepted.append(run_sync(store.apply([Write("child", create)])).outcomes[0].accepted)
    )
    commit = Transaction.commit
    with pytest.MonkeyPatch.context() as patches:

        async def commit_slowly(tx: Transaction, *parts: Part, after: Sequence[Part] = ()) -> list[Rows]:
            await tx.run(*parts)
            patches.undo()
            thread.start()
            until(lambda: is_waiting(postgres_server))
            return await commit(tx, after=after)

        patches.setattr(Transaction, "commit", commit_slowly)
        cancelled = run_sync(store.apply([Write("parent", plans.plan_cancel(new_operation_id()), answer=False)]))
    thread.join(PATIENCE)
    assert cancelled.outcomes[0].accepted
    assert accepted == [False]
    assert run_sync(store.get("child")) is None
