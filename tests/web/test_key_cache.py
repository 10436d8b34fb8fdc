"""Keys and sessions that are looked up while they end: their end in this process counts at once, in others after 2 s."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from milepost import AsyncJobManager
from milepost.web.security import api_keys
from milepost.web.security.api_keys import CACHE_SECONDS, ApiKeyStore
from tests.waiting import PATIENCE


async def test_lookup_that_a_revocation_overtakes_is_not_cached(
    manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the lookup had read the key before, and cached it after the revocation had emptied the cache."""
    keys = ApiKeyStore(manager.store)
    key, token = await keys.create("laptop", ["jobs:read"])
    has_read, is_revoked, now = asyncio.Event(), asyncio.Event(), manager.store.now

    async def late_now() -> int:
        has_read.set()
        await is_revoked.wait()
        return await now()

    async with asyncio.timeout(PATIENCE):
        with monkeypatch.context() as patch:
            patch.setattr(manager.store, "now", late_now)
            lookup = asyncio.create_task(keys.find(token))
            await has_read.wait()
        assert await keys.revoke(key.id)
        is_revoked.set()
        await lookup
    assert await keys.find(token) is None


async def test_lookup_during_a_sign_out_is_not_cached(
    manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the sign-out removed the session from the cache before it deleted it."""
    keys = ApiKeyStore(manager.store)
    _, token = await keys.create("laptop", ["jobs:read"])
    session, delete = await keys.sign_in(token, most=10) or "", manager.store.kv_delete

    async def delete_after_lookup(key: str) -> bool:
        assert await keys.of_session(session) is not None
        return await delete(key)

    monkeypatch.setattr(manager.store, "kv_delete", delete_after_lookup)
    await keys.sign_out(session)
    assert await keys.of_session(session) is None


async def test_slow_lookup_is_not_cached_for_longer(manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the time in the cache began when the lookup ended, however long before that the key had been read."""
    clock, now = SimpleNamespace(at=0.0, monotonic=lambda: clock.at), manager.store.now
    monkeypatch.setattr(api_keys, "time", clock)
    keys, other_process = ApiKeyStore(manager.store), ApiKeyStore(manager.store)
    key, token = await keys.create("laptop", ["jobs:read"])

    async def slow_now() -> int:
        clock.at += CACHE_SECONDS
        return await now()

    with monkeypatch.context() as patch:
        patch.setattr(manager.store, "now", slow_now)
        assert await keys.find(token) is not None
    assert await other_process.revoke(key.id)
    assert await keys.find(token) is None
