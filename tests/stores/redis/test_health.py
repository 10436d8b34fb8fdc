"""Health warnings about a server, and errors of a server that accepts no writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost import Jobs, Settings
from milepost.core import transitions as plans
from milepost.core.errors import StoreError, StoreUnavailableError
from milepost.core.limits import Limit
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Claim, Write
from milepost.stores.redis import RedisStore
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import worker_job
from tests.cli.subprocesses import CommandRunner
from tests.redis_server import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.service("redis-server")

Start = Callable[..., RedisServer]


def create(job_id: str) -> Write:
    return Write(job_id, plans.plan_create(worker_job(), new_operation_id()))


def test_healthy_server_has_no_warnings(start_redis: Start) -> None:
    store = RedisStore(start_redis(appendonly="always").url)
    found = run_sync(store.check_health())
    assert (found.kind, found.warnings) == ("redis", ())
    assert found.durability == "append-only file, a crash loses nothing"
    run_sync(store.close())


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_doctor_warns_of_eviction_policy(start_redis: Start, policy: str, tmp_path: Path) -> None:
    server = start_redis(appendonly="everysec", options={"maxmemory-policy": policy})
    with CommandRunner(tmp_path, MILEPOST_URL=server.url) as program:
        done = program.run("doctor")
    assert done.returncode == 1
    assert f"maxmemory-policy is {policy}: records may be evicted; set it to noeviction" in done.stdout


@pytest.mark.parametrize(
    ("save", "durability", "loses"),
    [("3600 1", "snapshots only", ": a crash loses everything since the last snapshot"),
     ("", "memory only", ", and there are no snapshots: a restart loses everything")],
)  # fmt: skip
def test_health_warns_of_missing_persistence(start_redis: Start, save: str, durability: str, loses: str) -> None:
    store = RedisStore(start_redis(options={"save": save}).url)
    found = run_sync(store.check_health())
    assert found.durability == durability
    [warning] = found.warnings
    assert warning.startswith(f"appendonly is off{loses}")
    run_sync(store.close())


@pytest.mark.parametrize("command", [("worker",), ("serve", "--port", "0")])
def test_strict_setting_refuses_to_start_on_warning(
    start_redis: Start, tmp_path: Path, command: tuple[str, ...]
) -> None:
    server = start_redis(appendonly="everysec", options={"maxmemory-policy": "allkeys-lru"})
    with CommandRunner(tmp_path, MILEPOST_URL=server.url, MILEPOST_STRICT="1") as program:
        done = program.run(*command)
    assert done.returncode == 1
    assert "fails its health check: maxmemory-policy is allkeys-lru" in done.stderr


def test_strict_setting_refuses_workers_beside_other_code(start_redis: Start) -> None:
    jobs = Jobs(start_redis().url, options=Settings(strict=True))
    jobs.job("a")(lambda run: None)
    with pytest.raises(StoreError, match=r"MILEPOST_STRICT: .* appendonly is off"), jobs.run_workers():
        pass


def test_documented_acl_suffices(start_redis: Start) -> None:
    server = start_redis(appendonly="everysec")
    docs = (Path(__file__).parents[3] / "docs" / "how-to" / "redis.md").read_text("utf-8")
    rights, for_doctor = re.findall(r"`([~+][^`]* [^`]*)`", docs)[:2]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rights.split())
    store = RedisStore(server.url_for("app", "pw"))
    start = plans.plan_start(new_operation_id(), nonce="n", lease=10**9, worker="w")
    run_sync(store.apply([Write("a", plans.plan_create(worker_job(unique_key="k", labels="x=y"), new_operation_id()))]))
    assert [
        job.job_id for job in run_sync(store.apply([], Claim("w", {"q": 1}, (start,), new_operation_id()))).claimed
    ] == ["a"]
    run_sync(store.set_limit("q", 3, False))
    assert run_sync(store.limits()) == {"q": Limit(3, False, None)}
    run_sync(store.apply([Write("a", plans.plan_cancel(new_operation_id()))]))
    assert run_sync(store.wait_for_work("w", ["q"], 1.0))
    assert len(run_sync(store.feed("0")).events) == 3
    assert run_sync(store.feed("0", timeout=1.0)).position == run_sync(store.feed(None)).position
    assert run_sync(store.kv_put("a", "b", ttl=60)) == 1
    assert len(run_sync(store.kv_scan(""))) == 1
    assert not run_sync(store.sweep(lease=1, interval=1)).skipped
    assert run_sync(purge_older(store, ttl=0)) == 1
    (warning,) = run_sync(store.check_health()).warnings
    assert "NOPERM" in warning
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", *for_doctor.split())
    found = run_sync(store.check_health())
    assert (found.warnings, found.durability) == ((), "append-only file, a crash loses about a second")
    run_sync(store.close())


def test_replica_is_used_once_promoted(start_redis: Start) -> None:
    master = start_redis()
    replica = start_redis(options={"replicaof": f"127.0.0.1 {master.port}", "repl-diskless-sync-delay": "0"})
    first = RedisStore(master.url)
    assert run_sync(first.apply([create("a")])).outcomes[0].accepted
    with replica.client() as client:
        until(lambda: client.info("replication")["master_link_status"] == "up")
        until(lambda: client.dbsize() > 0)
        store = RedisStore(replica.url, connect_budget=2.0)
        with pytest.raises(StoreUnavailableError, match="READONLY"):
            run_sync(store.apply([create("b")]))
        assert any("is a slave and accepts no writes" in warning for warning in run_sync(store.check_health()).warnings)
        client.replicaof("NO", "ONE")
        outcomes = run_sync(store.apply([create("b")])).outcomes
        assert outcomes[0].accepted
        assert run_sync(store.counts()) == {("t", "pending"): 2}
    for one in (first, store):
        run_sync(one.close())
