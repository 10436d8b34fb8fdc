"""Refusals of jobs that would wait for themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from milepost.core.errors import InvalidInputError
from milepost.core.placement import after_groups, groups_of, member_groups, members_pair, parent_of
from milepost.stores.protocol import Select, Store

DEPTH = 16
"""The most ancestors, and the most waiting jobs one after the other, that are looked at."""
LOOKED_AT = 1000
"""The most waiting members that are looked at."""


async def refuse_cycle(store: Store, fields: Mapping[str, str]) -> None:
    """Raise InvalidInputError if a new record with these fields would wait for itself.

    Costs nothing unless the record has `after` and is a member of a group, or a child. These never change, so that a later change of
    other jobs makes no cycle. What is beyond DEPTH and LOOKED_AT is not seen.
    """
    labels = fields.get("labels", "")
    awaited, own = after_groups(labels), member_groups(fields)
    if not awaited or not own:
        return
    _refuse(awaited, own, "the job itself is a member of it")
    parent = parent_of(fields) if "child_key" in fields else None
    for _ in range(DEPTH):
        job = await store.get(parent) if parent is not None else None
        if job is None:
            break
        _refuse(awaited, groups_of(job.job_id, job.record), "a parent of the job is in it")
        parent = job.parent_id if job.child_key is not None else None
    await _refuse_waiting(store, awaited, own)


def _refuse(awaited: Iterable[str], groups: Iterable[str], why: str) -> None:
    for group in groups:
        if group in awaited:
            raise InvalidInputError("after", f"{group!r:.170} would never close: {why}; omit it")


async def _refuse_waiting(store: Store, awaited: Iterable[str], own: Iterable[str]) -> None:
    """Follow the groups that waiting members of the awaited groups wait for, and so on."""
    seen, left, groups = set(awaited), LOOKED_AT, list(awaited)
    for _ in range(DEPTH):
        following: list[str] = []
        for group in groups:
            key, _, value = members_pair(group).partition("=")
            if key:
                select = Select(labels=((key, value),), statuses=("pending",))
                members = [job for job in await store.select(select, left) if group in member_groups(job.record)]
            else:
                members = [job for job in [await store.get(group.partition(":")[2])] if job is not None]
            left -= len(members)
            for job in members:
                if "held" in job.record:
                    _refuse(job.after, own, f"job {job.job_id} in {group} waits for it")
                    following += (one for one in job.after if one not in seen)
                    seen.update(job.after)
            if left <= 0:
                return
        groups = following
        if not groups:
            return
