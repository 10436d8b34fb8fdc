"""The layout of jobs in Redis: active and ended records, ids, keys, damaged records."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from milepost import Jobs, Run, Settings
from milepost.core import transitions as plans
from milepost.core.errors import LayoutMismatchError
from milepost.core.job import Job
from milepost.core.record_codec import unpack
from milepost.core.transitions.change import Change
from milepost.stores.ids import new_job_id, new_operation_id
from milepost.stores.index_entries import WAITING_FOR_STOP
from milepost.stores.protocol import LAYOUT, Position, Select, Write
from milepost.stores.redis import RedisStore
from milepost.stores.redis.codec import decode_id, encode_id
from milepost.stores.redis.scripts import script
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import LONG, caller_job, worker_job
from tests.redis_server import RedisServer
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.service("redis-server")


@pytest.fixture
def store(redis_url: str, redis_namespace: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_url, namespace=redis_namespace)
    yield store
    run_sync(store.close())


def do(store: RedisStore, job_id: str, change: Change) -> Job | None:
    outcome = run_sync(store.apply([Write(job_id, change)])).outcomes[0]
    assert outcome.accepted, change.transition.name
    return outcome.job


def failed(store: RedisStore, job_id: str, **fields: str) -> None:
    do(store, job_id, plans.plan_create(worker_job(**fields), new_operation_id()))
    job = do(store, job_id, plans.plan_start(new_operation_id(), nonce="n", lease=LONG, worker="w"))
    assert job is not None
    report = {"progress": "0.5", "message": "half"}
    do(
        store,
        job_id,
        plans.plan_fail(new_operation_id(), job.record["token"], error="no", failure='{"kind":"error"}', report=report),
    )


def test_record_is_hash_while_active_and_string_after(redis_server: RedisServer, store: RedisStore) -> None:
    failed(store, "a", metadata='{"deep":[[],{}]}', zz="later=release")
    with redis_server.client() as client:
        key = f"{{{store.namespace}}}:j:a"
        assert client.type(key) == "string"
        stored = unpack(client.get(key))
        assert (stored["metadata"], stored["zz"]) == ('{"deep":[[],{}]}', "later=release")
        before = run_sync(store.events("a"))
        at_rest = run_sync(store.get("a"))
        assert at_rest is not None
        assert at_rest.record["updated"] == at_rest.record["completed"]
        retried = do(store, "a", plans.plan_retry(new_operation_id()))
        assert client.type(key) == "hash"
        assert run_sync(store.events("a"))[: len(before)] == before
        assert retried is not None
        gone = {"completed", "error", "failure", "message", "started", "worker"}
        assert set(at_rest.record) - set(retried.record) <= gone
        assert retried.record["metadata"] == '{"deep":[[],{}]}'


def test_event_of_ended_job_is_unchanged(store: RedisStore) -> None:
    failed(store, "a")
    kinds = [(e.kind, e.status and e.status.value, e.message, e.progress, e.data) for e in run_sync(store.events("a"))]
    assert kinds == [
        ("created", "pending", None, None, {}),
        ("running", "running", None, 0.0, {"attempt": 1, "worker": "w"}),
        ("failed", "failed", "half", 0.5, {"error": "no"}),
    ]
    fed = run_sync(store.feed("0")).events
    assert fed == run_sync(store.events("a"))


@pytest.mark.parametrize(
    "job_id",
    [
        "0198a5f0-7c1e-7b8a-9c3d-0123456789ab",
        "0198A5F0-7C1E-7B8A-9C3D-0123456789AB",
        "sixteen-letters-",
        "=sixteen-letters",
        "=",
        "==x",
        "%",
        "{other}",
    ],
)
def test_job_id_round_trips(job_id: str) -> None:
    assert decode_id(encode_id(job_id)) == job_id


def test_sixteen_byte_id_is_not_taken_for_uuid(store: RedisStore) -> None:
    uuid = new_job_id()
    names = [uuid, "sixteen-letters-", "A" * 16, uuid.upper()]
    assert len({encode_id(name) for name in names}) == len(names)
    assert len(encode_id(uuid)) == 16
    for name in names:
        do(store, name, plans.plan_create(caller_job(), new_operation_id()))
    assert {job.job_id for job in run_sync(store.select(Select(), 10))} == set(names)


def test_all_keys_share_namespace_hash_tag(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()  # its own: on the shared one a heartbeat of an earlier test may still sweep
    store = RedisStore(server.url, namespace="t")
    failed(store, "a", unique_key="k", labels="owner=ana", not_after=str(1 << 52))
    do(store, "b", plans.plan_create(worker_job(not_before=str(1 << 52)), new_operation_id()))
    job = do(
        store,
        "c",
        plans.plan_track({"type": "t", "run_by": "track", "worker": "w"}, new_operation_id(), nonce="n", lease=LONG),
    )
    assert job is not None
    do(store, "c", plans.plan_log(new_operation_id(), job.record["token"], '{"lines":[]}'))
    do(store, "c", plans.plan_delete(new_operation_id()))
    run_sync(store.kv_put("key", "value", ttl=60))
    run_sync(store.set_limit("q", 1, False))
    run_sync(store.wake("w"))
    run_sync(store.sweep(lease=30, interval=5))
    with server.client(decode_responses=False) as client:
        keys = client.keys("*")
        assert keys
        assert [key for key in keys if not key.startswith(f"{{{store.namespace}}}:".encode())] == []
    run_sync(store.close())


def test_damaged_record_does_not_fail_lists(redis_server: RedisServer, store: RedisStore) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    for name in names:
        failed(store, name)
    do(store, "g", plans.plan_create(caller_job(), new_operation_id()))
    root = f"{{{store.namespace}}}:j:"
    with redis_server.client() as client:
        client.set(root + "a", b"\xff\xfe no record at all")
        client.set(root + "b", "")
        client.delete(root + "c")
        client.rpush(root + "c", "a list")
        client.delete(root + "d")
        client.set(root + "e", client.get(root + "e").replace("p=0.5", "p=NaN"))
        client.hset(root + "g", "c", "yesterday")
    found = run_sync(store.select(Select(), 10))
    assert {job.job_id for job in found} >= {"a", "c", "e", "f", "g"}
    assert "d" not in {job.job_id for job in found}, "a record that was evicted is not listed"
    shown = {job.job_id: job.to_dict() for job in found}
    assert shown["e"]["corrupt"] == ["progress"]
    assert shown["f"]["status"] == "failed"
    assert all(job.record["created"].isdigit() for job in found), "each has its place in the list"
    walked, after = [], None
    while page := run_sync(store.select(Select(), 1, after)):
        walked.append(page[0].job_id)
        after = Position(int(page[0].record["created"]), page[0].job_id)
    assert walked == [job.job_id for job in found]
    lone = run_sync(store.get("g"))
    assert lone is not None
    assert lone.corrupt == ("created_at",)
    assert run_sync(store.get("a")) is not None
    assert run_sync(store.get("d")) is None
    run_sync(store.sweep(lease=1, interval=0))
    run_sync(purge_older(store, ttl=0))


def test_purge_looks_once_for_jobs_that_wait_for_a_group(redis_server: RedisServer, store: RedisStore) -> None:
    for name in "abcdefghij":
        do(store, name, plans.plan_create(worker_job(labels=":group=g"), new_operation_id()))
        do(store, name, plans.plan_cancel(new_operation_id()))
    for name in "klmnopqrst":  # cancelled as soon as they are made
        do(store, name, plans.plan_create(worker_job(labels=":after=group:g"), new_operation_id()))
    with redis_server.client() as client:
        client.config_resetstat()
        assert run_sync(store.purge(before=run_sync(store.now()), limit=10)).removed == 10
        read = client.info("commandstats")["cmdstat_hmget"]["calls"]
    assert read < 50, "each of the 10 jobs that wait was read for each of the 10 members"


def test_purge_follows_end_order_after_retries(redis_server: RedisServer, store: RedisStore) -> None:
    for name in "abc":
        failed(store, name)
    do(store, "a", plans.plan_retry(new_operation_id()))
    do(store, "b", plans.plan_retry(new_operation_id()))
    do(store, "b", plans.plan_cancel(new_operation_id()))
    do(store, "c", plans.plan_delete(new_operation_id()))
    failed(store, "c")
    assert run_sync(purge_older(store, ttl=3600)) == 0
    assert run_sync(store.purge(before=run_sync(store.now()), limit=1)).removed == 1
    assert run_sync(store.get("b")) is None
    assert run_sync(purge_older(store, ttl=0)) == 1
    assert run_sync(store.counts()) == {("t", "pending"): 1}
    with redis_server.client() as client:
        assert client.llen(f"{{{store.namespace}}}:z") == 0
        assert client.hlen(f"{{{store.namespace}}}:zs") == 0


def test_retry_of_record_with_many_events_keeps_fields(redis_server: RedisServer, store: RedisStore) -> None:
    """Lua hands at most some thousands of words at once to a command; a job that was retried often has more."""
    do(store, "old", plans.plan_create(worker_job(), new_operation_id()))
    do(store, "old", plans.plan_cancel(new_operation_id()))
    key, newest = f"{{{store.namespace}}}:j:old", 4_002
    with redis_server.client() as client:
        more = (f"\n!{version}=retrying\0{version}\0s=pending" for version in range(3, newest + 1))
        client.set(key, client.get(key).replace("\nv=2\n", f"\nv={newest}\n") + "".join(more))
    retried = do(store, "old", plans.plan_retry(new_operation_id()))
    assert retried is not None
    assert (retried.status, retried.version) == ("pending", newest + 1)
    assert run_sync(store.get("old")) == retried
    assert [event.version for event in run_sync(store.events("old", limit=10_000))] == list(range(1, newest + 2))


def test_unknown_layout_is_refused(redis_server: RedisServer, store: RedisStore) -> None:
    run_sync(store.now())
    key = f"{{{store.namespace}}}:layout"
    with redis_server.client() as client:
        assert client.get(key) == str(LAYOUT)
        for found, remedy in (("99", "upgrade milepost"), ("0", "run: milepost migrate")):
            client.set(key, found)
            with pytest.raises(LayoutMismatchError, match=f"layout {found}, this release reads {LAYOUT}; {remedy}"):
                run_sync(RedisStore(redis_server.url, namespace=store.namespace).counts())


def test_lua_waiting_text_matches_python() -> None:
    assert WAITING_FOR_STOP.encode() in script("get").source


def test_finished_record_is_small(redis_server: RedisServer, store: RedisStore) -> None:
    job_id, text = new_job_id(), '{"text":"' + "x" * 89 + '"}'
    do(store, job_id, plans.plan_create(caller_job(metadata=text), new_operation_id()))
    do(store, job_id, plans.plan_update(new_operation_id(), "running"))
    for step in range(10):
        do(
            store,
            job_id,
            plans.plan_update(new_operation_id(), None, progress=str(step / 10), message=f"step {step} of 10"),
        )
    do(store, job_id, plans.plan_update(new_operation_id(), "completed", result=text))
    with redis_server.client(decode_responses=False) as client:
        used = client.memory_usage(f"{{{store.namespace}}}:j:".encode() + encode_id(job_id))
    assert used is not None
    assert used <= 600, "with its index entries (150 bytes) at most 0.85 of the original's 957 bytes"


def test_large_values_lie_beside_their_record_and_go_with_it(redis_server: RedisServer, store: RedisStore) -> None:
    text = '"' + "x" * 70_000 + '"'
    with redis_server.client() as client:
        record, values = (f"{{{store.namespace}}}:{kind}:a" for kind in "jv")
        do(store, "a", plans.plan_create(worker_job(params=text), new_operation_id()))
        job = do(store, "a", plans.plan_start(new_operation_id(), nonce="n", lease=LONG, worker="w"))
        assert job is not None
        assert client.hget(record, "P") == "\x1a70002"
        for checkpoint, kept in ((text, {"P", "C"}), ("1", {"P"}), (text, {"P", "C"})):
            do(store, "a", plans.plan_checkpoint(new_operation_id(), job.record["token"], checkpoint, {}))
            assert set(client.hgetall(values)) == kept
        do(store, "a", plans.plan_complete(new_operation_id(), job.record["token"], text, {}))
        assert set(client.hgetall(values)) == {"P", "r"}
        assert len(client.get(record)) < 1000
        do(store, "a", plans.plan_delete(new_operation_id()))
        assert not client.exists(values)


def test_layout_is_written_again_after_flushall(start_redis: Callable[..., RedisServer]) -> None:
    """After a FLUSHALL no process wrote the layout again, so that other releases and the check of Redis Cluster missed it."""
    server = start_redis()
    jobs = Jobs(server.url, options=Settings(heartbeat=0.05))

    @jobs.job("t")
    def t(run: Run) -> str:
        return "done"

    with jobs.run_workers(concurrency=1), server.client() as client:
        until(jobs.job_types)
        layout = client.get("{milepost}:layout")
        assert layout is not None
        client.flushall()
        until(lambda: client.get("{milepost}:layout") == layout)
        until(jobs.job_types)
        assert jobs.wait(jobs.submit(t), PATIENCE).result == "done"
    jobs.close()
