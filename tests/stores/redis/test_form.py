"""How jobs lie in Redis: at rest and alive, ids, keys, damage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.core.errors import LayoutMismatch
from milepost.core.job import Job
from milepost.core.packing import unpack
from milepost.stores.driving import drive
from milepost.stores.ids import new_job_id, new_op
from milepost.stores.placement import WAITING_FOR_STOP
from milepost.stores.protocol import LAYOUT, Position, Select, Write
from milepost.stores.redis import RedisStore
from milepost.stores.redis.names import plain, raw
from milepost.stores.redis.scripts import script
from milepost.testing.conformance.harness import LONG, caller_job, worker_job
from tests.services import RedisServer

pytestmark = pytest.mark.service("redis-server")


@pytest.fixture
def store(redis_url: str, redis_namespace: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_url, namespace=redis_namespace)
    yield store
    drive(store.close())


def do(store: RedisStore, job_id: str, change: Change) -> Job | None:
    outcome = drive(store.apply([Write(job_id, change)])).outcomes[0]
    assert outcome.accepted, change.shape.name
    return outcome.job


def failed(store: RedisStore, job_id: str, **fields: str) -> None:
    do(store, job_id, plans.plan_create(worker_job(**fields), new_op()))
    job = do(store, job_id, plans.plan_start(new_op(), nonce="n", lease=LONG, worker="w"))
    assert job is not None
    report = {"progress": "0.5", "message": "half"}
    do(
        store,
        job_id,
        plans.plan_fail(new_op(), job.record["token"], error="no", failure='{"kind":"error"}', report=report),
    )


def test_a_record_is_a_hash_while_it_lives_and_a_text_at_rest(redis_server: RedisServer, store: RedisStore) -> None:
    failed(store, "a", metadata='{"deep":[[],{}]}', zz="later=release")
    with redis_server.client() as client:
        key = f"{{{store.namespace}}}:j:a"
        assert client.type(key) == "string"
        stored = unpack(client.get(key))
        assert (stored["metadata"], stored["zz"]) == ('{"deep":[[],{}]}', "later=release")
        before = drive(store.events("a"))
        at_rest = drive(store.get("a"))
        assert at_rest is not None
        assert at_rest.record["updated"] == at_rest.record["completed"]
        retried = do(store, "a", plans.plan_retry(new_op()))
        assert client.type(key) == "hash"
        assert drive(store.events("a"))[: len(before)] == before
        assert retried is not None
        gone = {"completed", "error", "failure", "started", "worker"}
        assert set(at_rest.record) - set(retried.record) <= gone
        assert retried.record["metadata"] == '{"deep":[[],{}]}'


def test_an_event_at_rest_is_told_as_it_was(store: RedisStore) -> None:
    failed(store, "a")
    kinds = [(e.kind, e.status and e.status.value, e.message, e.progress, e.data) for e in drive(store.events("a"))]
    assert kinds == [
        ("created", "pending", None, None, {}),
        ("running", "running", None, 0.0, {"attempt": 1, "worker": "w"}),
        ("failed", "failed", "half", 0.5, {"error": "no"}),
    ]
    fed = drive(store.feed("0")).events
    assert fed == drive(store.events("a"))


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
def test_an_id_comes_back_as_it_was(job_id: str) -> None:
    assert plain(raw(job_id)) == job_id


def test_ids_of_sixteen_bytes_are_no_uuids(store: RedisStore) -> None:
    uuid = new_job_id()
    names = [uuid, "sixteen-letters-", "A" * 16, uuid.upper()]
    assert len({raw(name) for name in names}) == len(names)
    assert len(raw(uuid)) == 16
    for name in names:
        do(store, name, plans.plan_create(caller_job(), new_op()))
    assert {job.job_id for job in drive(store.select(Select(), 10))} == set(names)


def test_all_keys_have_the_tag_of_the_namespace(redis_server: RedisServer, store: RedisStore) -> None:
    failed(store, "a", unique_key="k", labels="owner=ana", not_after=str(1 << 52))
    do(store, "b", plans.plan_create(worker_job(not_before=str(1 << 52)), new_op()))
    job = do(
        store, "c", plans.plan_track({"type": "t", "driver": "track", "worker": "w"}, new_op(), nonce="n", lease=LONG)
    )
    assert job is not None
    do(store, "c", plans.plan_log(new_op(), job.record["token"], '{"lines":[]}'))
    do(store, "c", plans.plan_delete(new_op()))
    drive(store.shelf_put("key", "value", ttl=60))
    drive(store.set_limit("q", 1, False))
    drive(store.nudge("w"))
    drive(store.sweep(lease=30, interval=5))
    with redis_server.client(decode_responses=False) as client:
        keys = client.keys("*")
        assert keys
        assert [key for key in keys if not key.startswith(f"{{{store.namespace}}}:".encode())] == []


def test_lists_answer_beside_damaged_records(redis_server: RedisServer, store: RedisStore) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    for name in names:
        failed(store, name)
    do(store, "g", plans.plan_create(caller_job(), new_op()))
    root = f"{{{store.namespace}}}:j:"
    with redis_server.client() as client:
        client.set(root + "a", b"\xff\xfe no record at all")
        client.set(root + "b", "")
        client.delete(root + "c")
        client.rpush(root + "c", "a list")
        client.delete(root + "d")
        client.set(root + "e", client.get(root + "e").replace("p=0.5", "p=NaN"))
        client.hset(root + "g", "c", "yesterday")
    found = drive(store.select(Select(), 10))
    assert {job.job_id for job in found} >= {"a", "c", "e", "f", "g"}
    assert "d" not in {job.job_id for job in found}, "a record that was evicted is not listed"
    shown = {job.job_id: job.to_dict() for job in found}
    assert shown["e"]["corrupt"] == ["progress"]
    assert shown["f"]["status"] == "failed"
    assert all(job.record["created"].isdigit() for job in found), "each has its place in the list"
    walked, after = [], None
    while page := drive(store.select(Select(), 1, after)):
        walked.append(page[0].job_id)
        after = Position(int(page[0].record["created"]), page[0].job_id)
    assert walked == [job.job_id for job in found]
    lone = drive(store.get("g"))
    assert lone is not None
    assert lone.corrupt == ("created_at",)
    assert drive(store.get("a")) is not None
    assert drive(store.get("d")) is None
    drive(store.sweep(lease=1, interval=0))
    drive(store.purge(ttl=0))


def test_the_ended_go_in_the_order_of_their_end_however_often_they_were_retried(
    redis_server: RedisServer, store: RedisStore
) -> None:
    for name in "abc":
        failed(store, name)
    do(store, "a", plans.plan_retry(new_op()))
    do(store, "b", plans.plan_retry(new_op()))
    do(store, "b", plans.plan_cancel(new_op()))
    do(store, "c", plans.plan_delete(new_op()))
    failed(store, "c")
    assert drive(store.purge(ttl=3600)) == 0
    assert drive(store.purge(ttl=0, limit=1)) == 1
    assert drive(store.get("b")) is None
    assert drive(store.purge(ttl=0)) == 1
    assert drive(store.counts()) == {("t", "pending"): 1}
    with redis_server.client() as client:
        assert client.llen(f"{{{store.namespace}}}:z") == 0
        assert client.hlen(f"{{{store.namespace}}}:zs") == 0


def test_a_record_of_very_many_lifecycle_events_leaves_its_rest_whole(
    redis_server: RedisServer, store: RedisStore
) -> None:
    """Lua hands at most some thousands of words at once to a command; a job that was retried often has more."""
    do(store, "old", plans.plan_create(worker_job(), new_op()))
    do(store, "old", plans.plan_cancel(new_op()))
    key, newest = f"{{{store.namespace}}}:j:old", 4_002
    with redis_server.client() as client:
        more = (f"\n!{version}=retrying\0{version}\0s=pending" for version in range(3, newest + 1))
        client.set(key, client.get(key).replace("\nv=2\n", f"\nv={newest}\n") + "".join(more))
    retried = do(store, "old", plans.plan_retry(new_op()))
    assert retried is not None
    assert (retried.status, retried.version) == ("pending", newest + 1)
    assert drive(store.get("old")) == retried
    assert [event.version for event in drive(store.events("old", limit=10_000))] == list(range(1, newest + 2))


def test_a_layout_of_another_time_is_refused(redis_server: RedisServer, store: RedisStore) -> None:
    drive(store.now())
    key = f"{{{store.namespace}}}:layout"
    with redis_server.client() as client:
        assert client.get(key) == str(LAYOUT)
        for found, remedy in (("99", "upgrade milepost"), ("0", "run: milepost migrate")):
            client.set(key, found)
            with pytest.raises(LayoutMismatch, match=f"layout {found}, this release reads {LAYOUT}; {remedy}"):
                drive(RedisStore(redis_server.url, namespace=store.namespace).counts())


def test_the_scripts_say_what_the_other_stores_say() -> None:
    assert WAITING_FOR_STOP.encode() in script("get").source


def test_a_finished_record_is_small(redis_server: RedisServer, store: RedisStore) -> None:
    job_id, text = new_job_id(), '{"text":"' + "x" * 89 + '"}'
    do(store, job_id, plans.plan_create(caller_job(metadata=text), new_op()))
    do(store, job_id, plans.plan_update(new_op(), "running"))
    for step in range(10):
        do(store, job_id, plans.plan_update(new_op(), None, progress=str(step / 10), message=f"step {step} of 10"))
    do(store, job_id, plans.plan_update(new_op(), "completed", result=text))
    with redis_server.client(decode_responses=False) as client:
        used = client.memory_usage(f"{{{store.namespace}}}:j:".encode() + raw(job_id))
    assert used is not None
    assert used <= 600, "with its index entries (150 bytes) at most 0.85 of the original's 957 bytes"
