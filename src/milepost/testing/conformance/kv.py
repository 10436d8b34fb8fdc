"""The key-value store, and the health, URL and lifecycle of a store object."""

from __future__ import annotations

import pytest

from milepost.core.errors import InvalidInputError
from milepost.stores.protocol import LAYOUT, KeyValue
from milepost.testing.conformance.harness import Scenarios, StoreFixture, caller_job
from milepost.testing.conformance.operations import ODD


class KeyValues(Scenarios):
    """Get, conditional put, delete and scan."""

    async def test_value_is_put_read_and_deleted(self, fixture: StoreFixture) -> None:
        store = fixture.store
        assert await store.kv_get("k") is None
        version = await store.kv_put("k", "v")
        assert version
        assert await store.kv_get("k") == KeyValue("k", "v", version)
        assert await store.kv_delete("k") is True
        assert await store.kv_delete("k") is False
        assert await store.kv_get("k") is None

    async def test_put_checks_expected_version(self, fixture: StoreFixture) -> None:
        store = fixture.store
        assert await store.kv_put("k", "x", version=7) is None
        first = await store.kv_put("k", "1", version=0)
        assert first
        assert await store.kv_put("k", "2", version=0) is None
        second = await store.kv_put("k", "2", version=first)
        assert second
        assert second != first
        assert await store.kv_put("k", "3", version=first) is None
        item = await store.kv_get("k")
        assert item == KeyValue("k", "2", second)
        third = await store.kv_put("k", "3")
        assert third not in (None, first, second)
        await store.kv_delete("k")
        fresh = await store.kv_put("k", "4", version=0)
        assert fresh not in (None, first, second, third), "a version is never reused, even after a delete"
        assert await store.kv_put("k", "5", version=third) is None

    async def test_value_expires(self, fixture: StoreFixture) -> None:
        store = fixture.store
        version = await store.kv_put("k", "v", ttl=0.02)
        await store.kv_put("stays", "v", ttl=3600)
        await fixture.until(await store.now() + 21_000)
        assert await store.kv_get("k") is None
        assert [i.key for i in await store.kv_scan("")] == ["stays"]
        assert await store.kv_put("k", "x", version=version) is None
        assert await store.kv_delete("k") is False
        assert await store.kv_put("k", "x", version=0)
        assert await store.kv_get("k") is not None

    async def test_short_page_is_the_last_one(self, fixture: StoreFixture) -> None:
        """Its reader asks for no further one, so values that have expired must not count."""
        store = fixture.store
        for number in range(6):
            await store.kv_put(f"k{number}", "v", ttl=0.02 if number % 2 else None)
        await fixture.until(await store.now() + 21_000)
        assert [i.key for i in await store.kv_scan("k", limit=2)] == ["k0", "k2"]
        assert [i.key for i in await store.kv_scan("k", after="k2", limit=2)] == ["k4"]

    async def test_value_without_ttl_stays(self, fixture: StoreFixture) -> None:
        store = fixture.store
        await store.kv_put("k", "v", ttl=0.02)
        await store.kv_put("k", "w")
        await fixture.until(await store.now() + 21_000)
        item = await store.kv_get("k")
        assert item is not None
        assert item.value == "w"

    async def test_scan_order_is_code_points(self, fixture: StoreFixture) -> None:
        store = fixture.store
        keys = ["p:a", "p:B", "p:a:b", "p:ä", "p:🙂", "p:*", "p:%", "p:_", "q:a", "p", "P:a", "p:\ufffd"]
        for key in keys:
            await store.kv_put(key, key.upper())
        right = sorted(k for k in keys if k.startswith("p:"))
        found = await store.kv_scan("p:")
        assert [i.key for i in found] == right
        assert [i.value for i in found] == [k.upper() for k in right]
        assert [i.key for i in await store.kv_scan("p:", after=right[2])] == right[3:]
        assert [i.key for i in await store.kv_scan("p:", after=right[1], limit=2)] == right[2:4]
        assert [i.key for i in await store.kv_scan("")] == sorted(keys)
        assert await store.kv_scan("nothing") == []
        assert [i.key for i in await store.kv_scan("p:*")] == ["p:*"]
        assert [i.key for i in await store.kv_scan("p:%")] == ["p:%"]
        assert [i.key for i in await store.kv_scan("p:_")] == ["p:_"]

    async def test_values_are_kept_unchanged(self, fixture: StoreFixture) -> None:
        for number, value in enumerate(("", ODD, "line\nline\n", "x" * 200_000, "0", "null")):
            version = await fixture.store.kv_put(f"k{number}", value)
            assert await fixture.store.kv_get(f"k{number}") == KeyValue(f"k{number}", value, version or 0)

    async def test_text_that_no_store_keeps_is_refused(self, fixture: StoreFixture) -> None:
        """PostgreSQL keeps no NUL, and no database a lone surrogate. The others must not accept them either."""
        store, remedies = (
            fixture.store,
            {"a\0b": "NUL character; remove it", "a\ud800b": "lone surrogate; decode the text"},
        )
        await store.kv_put("k", "v")
        for text, remedy in remedies.items():
            for field, key, value in (("key", text, "v"), ("value", "k", text)):
                with pytest.raises(InvalidInputError, match=remedy) as refused:
                    await store.kv_put(key, value)
                assert refused.value.field == field
        assert [(item.key, item.value) for item in await store.kv_scan("")] == [("k", "v")]

    async def test_keys_and_jobs_are_separate(self, fixture: StoreFixture) -> None:
        for name in ("a", "j:a", "e:a", "q", "t", "f", "fence"):
            await fixture.store.kv_put(name, "v")
        await fixture.create("a", caller_job())
        assert len(await fixture.store.kv_scan("")) == 7
        assert await fixture.store.counts() == {("t", "pending"): 1}


class StoreItself(Scenarios):
    """Health, URL, close, and the other API."""

    async def test_check_health_reports_server(self, fixture: StoreFixture) -> None:
        health = await fixture.store.check_health()
        assert health.layout == LAYOUT
        assert health.kind
        assert health.durability
        assert all(isinstance(text, str) for text in health.warnings)

    async def test_store_works_again_after_close(self, fixture: StoreFixture) -> None:
        await fixture.create("a", caller_job())
        await fixture.store.close()
        await fixture.store.close()
        assert (await fixture.job("a")).job_id == "a"

    async def test_url_has_no_password(self, fixture: StoreFixture) -> None:
        scheme, separator, rest = fixture.store.url.partition("://")
        assert scheme
        assert separator
        assert ":" not in rest.rpartition("@")[0]

    async def test_other_api_sees_same_jobs(self, fixture: StoreFixture) -> None:
        await fixture.create("a", caller_job())
        same = fixture.store.with_blocking(blocking=fixture.store.blocking)
        assert same.blocking is fixture.store.blocking
        job = await same.get("a")
        assert job is not None
        assert (job.job_id, job.version) == ("a", 1)
        if same is not fixture.store:
            await same.close()

    async def test_other_api_is_same_object_at_each_call(self, fixture: StoreFixture) -> None:
        other = fixture.store.with_blocking(blocking=not fixture.store.blocking)
        assert other.blocking is not fixture.store.blocking
        assert fixture.store.with_blocking(blocking=other.blocking) is other
