"""A PostgreSQL store that is refused connections, loses the answer to a COMMIT, meets other transactions, or has no space."""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from milepost import Jobs, Run, Settings
from milepost.core import transitions as plans
from milepost.core.errors import OutcomeUnknownError, StoreFullError, StoreUnavailableError
from milepost.core.limits import Limit
from milepost.stores.ids import new_operation_id
from milepost.stores.postgres import PostgresStore
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from tests.chaos.proxy import Proxy
from tests.postgres_server import PostgresServer, on_each_postgres, owner_of
from tests.stores.postgres.conftest import through
from tests.waiting import until

pytestmark = on_each_postgres


def test_refused_connections_name_the_limits_and_end(postgres_server: PostgresServer) -> None:
    namespace = postgres_server.emptied("refused")
    run_sync(PostgresStore(postgres_server.url(), namespace=namespace).now())
    postgres_server.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 1")
    postgres_server.execute(f"GRANT ALL ON SCHEMA {namespace} TO few")
    postgres_server.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {namespace} TO few")
    postgres_server.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {namespace} TO few")
    url = postgres_server.url().replace("postgres@", "few@")
    try:
        store = PostgresStore(url, namespace=namespace, connect_budget=0)
        with psycopg.connect(url), pytest.raises(StoreUnavailableError) as e:
            run_sync(store.now())
        assert str(e.value).endswith("raise max_connections or the limit of the role, or connect through PgBouncer")
        assert "\n" not in str(e.value)
        assert e.value.temporary
        until(lambda: run_sync(store.now()))
        run_sync(store.close())
    finally:
        postgres_server.execute("DROP OWNED BY few")
        postgres_server.execute("DROP ROLE few")


def test_job_whose_commit_was_not_answered_exists_once(postgres_server: PostgresServer, proxy: Proxy) -> None:
    settings = Settings(namespace=postgres_server.emptied("unanswered"))
    jobs = Jobs(through(proxy), options=settings)

    @jobs.job("t")
    def t(run: Run) -> None: ...

    jobs.submit(t)
    proxy.lose()
    job = jobs.submit(t)
    assert proxy.lost == 1
    assert jobs.count_jobs() == 2
    assert [event.kind for event in jobs.events(job.job_id)] == ["created"]
    jobs.close()


def test_jobs_whose_commits_were_not_answered_run_once(postgres_server: PostgresServer, proxy: Proxy) -> None:
    settings = Settings(namespace=postgres_server.emptied("unanswered"), heartbeat=0.05)
    worker = Jobs(through(proxy), options=settings)
    ran: list[str] = []

    @worker.job("t")
    def t(run: Run) -> str:
        proxy.lose()  # the answer to a checkpoint, a finish or a claim, whichever comes next
        run.checkpoint({"n": 1})
        ran.append(run.job_id)
        return run.job_id

    with worker.run_workers(concurrency=2):
        made = [worker.submit(t).job_id for _ in range(12)]
        done = [worker.wait(job_id, timeout=60) for job_id in made]
    assert [(job.status.value, job.attempt, job.result) for job in done] == [("completed", 1, i) for i in made]
    assert sorted(ran) == sorted(made)
    assert proxy.lost >= len(made) // 2
    worker.close()


def test_change_that_cannot_be_repeated_says_that_it_may_have_been_made(
    postgres_server: PostgresServer, proxy: Proxy
) -> None:
    store = PostgresStore(through(proxy), namespace=postgres_server.emptied("unanswered"))
    version = run_sync(store.kv_put("k", "old"))
    proxy.lose()
    with pytest.raises(OutcomeUnknownError, match=r"may have been made, read it before you repeat it$") as e:
        run_sync(store.kv_put("k", "new", version=version))
    assert "\n" not in str(e.value)
    found = run_sync(store.kv_get("k"))
    assert found is not None
    assert found.value == "new"
    run_sync(store.close())


def test_serialization_failure_is_repeated(postgres_server: PostgresServer) -> None:
    namespace = postgres_server.emptied("serialized")
    options = "options=-cdefault_transaction_isolation%3Dserializable"
    store = PostgresStore(f"{postgres_server.url()}?{options}", namespace=namespace)
    run_sync(store.set_limit("q", 1, False))
    with psycopg.connect(postgres_server.url()) as other:
        other.execute(f"UPDATE {namespace}.limits SET most = 2")
        thread = threading.Thread(target=lambda: run_sync(store.set_limit("q", 3, False)))
        thread.start()
        until(lambda: other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())
    thread.join()
    assert run_sync(store.limits()) == {"q": Limit(3, False, None)}
    run_sync(store.close())


@pytest.fixture
def small_disk(postgres_server: PostgresServer) -> Iterator[Path]:
    """Yield a folder of 64 MB with the tablespace `small`, in which the database `small` is."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-disk-"))
    owner_of(folder)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=False).returncode:
        folder.rmdir()
        pytest.skip("mounting a file system is not permitted")
    try:
        space = folder / "space"
        space.mkdir()
        owner_of(space)
        postgres_server.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        postgres_server.execute("CREATE DATABASE small TABLESPACE small")
        yield folder
        postgres_server.execute("DROP DATABASE small WITH (FORCE)")
        postgres_server.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_full_disk_loses_nothing_and_is_survived(postgres_server: PostgresServer, small_disk: Path) -> None:
    store = PostgresStore(postgres_server.url("small"))
    acknowledged: list[str] = []

    def create(size: int = 100_000) -> None:
        job_id = f"job-{len(acknowledged)}"
        fields = {"type": "t", "run_by": "worker", "ready": "q", "params": os.urandom(size).hex()}
        run_sync(store.apply([Write(job_id, plans.plan_create(fields, new_operation_id()))]))
        acknowledged.append(job_id)

    create()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 4_000_000))
    with pytest.raises(StoreFullError, match=r"No space left on device.*; free space on the server$") as e:
        collections.deque(iter(create, "never"))
    assert "\n" not in str(e.value)
    assert run_sync(store.get(f"job-{len(acknowledged)}")) is None
    ballast.unlink()
    create()
    assert sum(run_sync(store.counts()).values()) == len(acknowledged)
    assert all(run_sync(store.get(job_id)) for job_id in acknowledged)
    run_sync(store.close())
