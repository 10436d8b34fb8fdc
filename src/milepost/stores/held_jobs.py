"""Releases jobs that waited for groups that have closed, and cancels the children of jobs that did not complete.

The step that closes a group records that, so this may fail or die at any point: a sweep continues.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from milepost.core.errors import LeaseHeldError, StoreError
from milepost.core.placement import ORPHANS
from milepost.core.transitions import STILL_HELD, plan_cancel_orphan, plan_release_held
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import INVALID_VALUE_ERRORS, Write, WriteResult

SLICE = 500
"""Jobs released in one step: about 20 ms."""

log = logging.getLogger("milepost.store")
log.addHandler(logging.NullHandler())


class _Store(Protocol):
    async def held_by(self, group: str, limit: int) -> list[str]: ...

    async def open_members(self, group: str, limit: int) -> list[str]: ...

    async def _apply_held(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Apply writes without releasing anything."""


async def release_held(store: _Store, closed: Iterable[str]) -> None:
    """Release the jobs that wait for these groups, and those that wait for jobs which are cancelled thereby. Names that
    begin with ORPHANS stand for children to be cancelled.

    If the store fails, or one of these jobs is locked, the sweep continues later. The error of a damaged job is logged: it concerns no caller.
    """
    groups = list(closed)
    try:
        while groups:
            group = groups.pop()
            if group.startswith(ORPHANS):
                held = await store.open_members("children:" + group.removeprefix(ORPHANS), SLICE)
                plan, least = plan_cancel_orphan, 0
            else:
                held = await store.held_by(group, SLICE)
                plan, least = plan_release_held, STILL_HELD + 1
            if not held:
                continue
            outcomes = await store._apply_held(
                [Write(job_id, plan(new_operation_id()), answer=False) for job_id in held]
            )
            groups += (name for outcome in outcomes for name in outcome.closed)
            if len(held) == SLICE and any(outcome.branch >= least for outcome in outcomes):
                groups.append(group)
    except (StoreError, LeaseHeldError) as error:
        log.warning("group %s: jobs not released, a sweep continues: %s", group, error)
    except INVALID_VALUE_ERRORS as error:
        log.error("group %s: jobs not released, one of them is damaged: %s", group, error)
