"""Write the schedules that the code of a worker declares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from milepost.core.schedule import Schedule
from milepost.core.serialization import from_micros
from milepost.manager.schedules import changed, moved_on
from milepost.stores.protocol import KeyValueStore, Store

REDECLARE_AFTER = timedelta(hours=1)
"""How old the time of an unchanged declaration may be before it is written again."""
MAX_REPLACED = 20
MAX_CONFLICTS = 5


async def declare(
    store: Store,
    schedules: Iterable[Schedule],
    release: str | None,
    living: Callable[[KeyValueStore], Awaitable[frozenset[str]]],
) -> None:
    """Write declared schedules. `living` returns the digests of what live workers declare.

    A declaration that has replaced another one keeps its digest. A worker whose own declaration is among the replaced ones
    is of an older release, and leaves the newer one in place while a worker of that release is alive.
    """
    for wanted in schedules:
        for _ in range(MAX_CONFLICTS):
            item = await store.kv_get(wanted.key)
            found = Schedule.from_text(item.value) if item is not None else None
            now = from_micros(await store.now())
            is_older = found is not None and found.declared != wanted.digest and wanted.digest in found.replaced
            if is_older and found is not None and found.declared in await living(store):
                break
            written = _declared(found, wanted, release, now)
            version = item.version if item is not None else 0
            if written is None or await store.kv_put(wanted.key, written.to_text(), version=version) is not None:
                break


def _declared(found: Schedule | None, wanted: Schedule, release: str | None, now: datetime) -> Schedule | None:
    """Return the schedule after a declaration, or None if nothing is to be written."""
    if found is None:
        return moved_on(replace(wanted, created_at=now, declared_at=now, release=release), now)
    if found.paused == "undeclared":  # missed ticks follow `catch_up`, as if no process had run that could pause it
        found = replace(found, paused=None, declared_at=None)
    if found.declared == wanted.digest:
        is_new = found.declared_at is not None and now - found.declared_at < REDECLARE_AFTER
        return None if is_new else replace(found, declared_at=now)
    if found.declared is None:  # made by a call, which the declaration does not change
        overridden = found.digest != wanted.digest
        return replace(found, declared=wanted.digest, declared_at=now, release=release, overridden=overridden)
    replaced = tuple(dict.fromkeys([found.declared, *found.replaced]))[:MAX_REPLACED]
    return changed(found, replace(wanted, replaced=replaced, declared_at=now, release=release), now)
