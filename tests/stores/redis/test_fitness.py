"""What is unfit about a server is said in plain words, and a server that takes no writes is an error, not a loss."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost.core import lifecycle as plans
from milepost.core.errors import StoreUnavailable
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Claim, Write
from milepost.stores.redis import RedisStore
from milepost.testing.conformance.harness import worker_job
from tests.cli.programs import Program
from tests.services import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.service("redis-server")

Start = Callable[..., RedisServer]


def create(job_id: str) -> Write:
    return Write(job_id, plans.plan_create(worker_job(), new_op()))


def test_a_fit_server_has_no_warnings(start_redis: Start) -> None:
    store = RedisStore(start_redis(appendonly="always").url)
    found = drive(store.examine())
    assert (found.kind, found.warnings) == ("redis", ())
    assert found.durability == "append-only file, a crash costs nothing"
    drive(store.close())


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_eviction_is_warned_of_by_doctor(start_redis: Start, policy: str, tmp_path: Path) -> None:
    server = start_redis(appendonly="everysec", options={"maxmemory-policy": policy})
    with Program(tmp_path, MILEPOST_URL=server.url) as program:
        done = program.run("doctor")
    assert done.returncode == 1
    assert f"maxmemory-policy is {policy}: records may vanish; set it to noeviction" in done.stdout


def test_no_persistence_is_warned_of(start_redis: Start) -> None:
    store = RedisStore(start_redis().url)
    [warning] = drive(store.examine()).warnings
    assert warning.startswith("appendonly is off: a crash costs everything since the last snapshot")
    drive(store.close())


def test_the_rights_that_the_docs_name_are_enough_and_info_is_for_doctor(start_redis: Start) -> None:
    server = start_redis(appendonly="everysec")
    docs = (Path(__file__).parents[3] / "docs" / "how-to" / "redis.md").read_text("utf-8")
    rights, for_doctor = re.findall(r"`([~+][^`]* [^`]*)`", docs)[:2]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rights.split())
    store = RedisStore(server.url_for("app", "pw"))
    start = plans.plan_start(new_op(), nonce="n", lease=10**9, worker="w")
    drive(store.apply([Write("a", plans.plan_create(worker_job(unique_key="k", labels="x=y"), new_op()))]))
    assert [job.job_id for job in drive(store.apply([], Claim("w", {"q": 1}, (start,), new_op()))).claimed] == ["a"]
    drive(store.set_limit("q", 3, False))
    assert drive(store.limits()) == {"q": (3, False)}
    drive(store.apply([Write("a", plans.plan_cancel(new_op()))]))
    assert drive(store.idle("w", ["q"], 1.0))
    assert len(drive(store.feed("0")).events) == 3
    assert drive(store.feed("0", timeout=1.0)).position == drive(store.feed(None)).position
    assert drive(store.shelf_put("a", "b", ttl=60)) == 1
    assert len(drive(store.shelf_scan(""))) == 1
    assert not drive(store.sweep(lease=1, interval=1)).skipped
    assert drive(store.purge(ttl=0)) == 1
    (warning,) = drive(store.examine()).warnings
    assert "NOPERM" in warning
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", *for_doctor.split())
    found = drive(store.examine())
    assert (found.warnings, found.durability) == ((), "append-only file, a crash costs about a second")
    drive(store.close())


def test_a_replica_refuses_writes_and_is_used_when_it_becomes_the_master(start_redis: Start) -> None:
    master = start_redis()
    replica = start_redis(options={"replicaof": f"127.0.0.1 {master.port}", "repl-diskless-sync-delay": "0"})
    first = RedisStore(master.url)
    assert drive(first.apply([create("a")])).outcomes[0].accepted
    with replica.client() as client:
        until(lambda: client.info("replication")["master_link_status"] == "up")
        until(lambda: client.dbsize() > 0)
        store = RedisStore(replica.url, connect_budget=2.0)
        with pytest.raises(StoreUnavailable, match="READONLY"):
            drive(store.apply([create("b")]))
        assert any("is a slave: it takes no writes" in warning for warning in drive(store.examine()).warnings)
        client.replicaof("NO", "ONE")
        outcomes = drive(store.apply([create("b")])).outcomes
        assert outcomes[0].accepted
        assert drive(store.counts()) == {("t", "pending"): 2}
    for one in (first, store):
        drive(one.close())
