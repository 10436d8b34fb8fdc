"""The shelf: what is not a job, by name, with versions and a time to live. And what a store says of itself."""

from __future__ import annotations

from milepost.stores.protocol import LAYOUT, Item
from milepost.testing.conformance.harness import Scenarios, World, caller_job
from milepost.testing.conformance.language import ODD


class OnTheShelf(Scenarios):
    """get, put if the version is right, delete, scan."""

    async def test_a_value_is_put_read_and_taken_away(self, world: World) -> None:
        store = world.store
        assert await store.shelf_get("k") is None
        version = await store.shelf_put("k", "v")
        assert version
        assert await store.shelf_get("k") == Item("k", "v", version)
        assert await store.shelf_delete("k") is True
        assert await store.shelf_delete("k") is False
        assert await store.shelf_get("k") is None

    async def test_a_put_names_the_version_that_it_has_seen(self, world: World) -> None:
        store = world.store
        assert await store.shelf_put("k", "x", version=7) is None
        first = await store.shelf_put("k", "1", version=0)
        assert first
        assert await store.shelf_put("k", "2", version=0) is None
        second = await store.shelf_put("k", "2", version=first)
        assert second
        assert second != first
        assert await store.shelf_put("k", "3", version=first) is None
        item = await store.shelf_get("k")
        assert item == Item("k", "2", second)
        third = await store.shelf_put("k", "3")
        assert third not in (None, first, second)
        await store.shelf_delete("k")
        fresh = await store.shelf_put("k", "4", version=0)
        assert fresh not in (None, first, second, third), "a version is never given twice, also after a delete"
        assert await store.shelf_put("k", "5", version=third) is None

    async def test_a_value_is_forgotten_after_its_time(self, world: World) -> None:
        store = world.store
        version = await store.shelf_put("k", "v", ttl=0.02)
        await store.shelf_put("stays", "v", ttl=3600)
        await world.until(await store.now() + 21_000)
        assert await store.shelf_get("k") is None
        assert [i.key for i in await store.shelf_scan("")] == ["stays"]
        assert await store.shelf_put("k", "x", version=version) is None
        assert await store.shelf_delete("k") is False
        assert await store.shelf_put("k", "x", version=0)
        assert await store.shelf_get("k") is not None

    async def test_a_put_without_a_time_to_live_stays(self, world: World) -> None:
        store = world.store
        await store.shelf_put("k", "v", ttl=0.02)
        await store.shelf_put("k", "w")
        await world.until(await store.now() + 21_000)
        item = await store.shelf_get("k")
        assert item is not None
        assert item.value == "w"

    async def test_a_scan_goes_in_the_order_of_code_points(self, world: World) -> None:
        store = world.store
        keys = ["p:a", "p:B", "p:a:b", "p:ä", "p:🙂", "p:*", "p:%", "p:_", "q:a", "p", "P:a", "p:\ufffd"]
        for key in keys:
            await store.shelf_put(key, key.upper())
        right = sorted(k for k in keys if k.startswith("p:"))
        found = await store.shelf_scan("p:")
        assert [i.key for i in found] == right
        assert [i.value for i in found] == [k.upper() for k in right]
        assert [i.key for i in await store.shelf_scan("p:", after=right[2])] == right[3:]
        assert [i.key for i in await store.shelf_scan("p:", after=right[1], limit=2)] == right[2:4]
        assert [i.key for i in await store.shelf_scan("")] == sorted(keys)
        assert await store.shelf_scan("nothing") == []
        assert [i.key for i in await store.shelf_scan("p:*")] == ["p:*"]
        assert [i.key for i in await store.shelf_scan("p:%")] == ["p:%"]
        assert [i.key for i in await store.shelf_scan("p:_")] == ["p:_"]

    async def test_values_are_kept_as_they_are(self, world: World) -> None:
        for number, value in enumerate(("", ODD, "line\nline\n", "x" * 200_000, "0", "null")):
            version = await world.store.shelf_put(f"k{number}", value)
            assert await world.store.shelf_get(f"k{number}") == Item(f"k{number}", value, version or 0)

    async def test_the_shelf_and_the_jobs_do_not_meet(self, world: World) -> None:
        for name in ("a", "j:a", "e:a", "q", "t", "f", "fence"):
            await world.store.shelf_put(name, "v")
        await world.create("a", caller_job())
        assert len(await world.store.shelf_scan("")) == 7
        assert await world.store.counts() == {("t", "pending"): 1}


class Itself(Scenarios):
    """What a store says of itself."""

    async def test_it_says_how_it_is(self, world: World) -> None:
        fitness = await world.store.examine()
        assert fitness.layout == LAYOUT
        assert fitness.kind
        assert fitness.durability
        assert all(isinstance(text, str) for text in fitness.warnings)

    async def test_it_can_be_used_again_after_it_was_closed(self, world: World) -> None:
        await world.create("a", caller_job())
        await world.store.close()
        await world.store.close()
        assert (await world.job("a")).job_id == "a"

    async def test_its_address_names_no_password(self, world: World) -> None:
        scheme, separator, rest = world.store.url.partition("://")
        assert scheme
        assert separator
        assert ":" not in rest.rpartition("@")[0]

    async def test_a_twin_sees_the_same_jobs(self, world: World) -> None:
        await world.create("a", caller_job())
        same = world.store.twin(blocking=world.store.blocking)
        assert same.blocking is world.store.blocking
        job = await same.get("a")
        assert job is not None
        assert (job.job_id, job.version) == ("a", 1)
        if same is not world.store:
            await same.close()
