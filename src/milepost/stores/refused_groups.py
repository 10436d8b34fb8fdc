"""Errors for records that join or follow groups which are unknown or closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.core.placement import BATCH, after_groups, groups_joined
from milepost.stores.protocol import Select, Store


def unknown_error(field: str, group: str, remedy: str = "submit it first") -> InvalidInputError:
    """Return the error for a job, as ``job:ID``, or a group, as ``group:NAME``, that does not exist."""
    kind, _, name = group.partition(":")
    if kind == "group":
        return InvalidInputError(field, f"no job is in the group {name!r:.140}; submit its members first")
    return InvalidInputError(field, f"there is no job {name!r:.140}; {remedy}")


async def group_error(store: Store, job_id: str, fields: Mapping[str, str]) -> InvalidInputError | None:
    """Return the error for a record with these fields whose groups are the reason why it was not created, else None."""
    labels = fields.get("labels", "")
    if (name := await closed_batch(store, labels)) is not None:
        return InvalidInputError("group", f"batch {name!r:.140} is closed; only its running members can add jobs")
    for group in after_groups(labels):
        kind, _, name = group.partition(":")
        if kind == "group" and not await store.count(Select(labels=((":group", name),))):
            return unknown_error("after", group)
        if kind != "group" and await store.get(name) is None:
            return unknown_error(
                "after", group, "a job cannot wait for itself" if name == job_id else "submit it first"
            )
    return None


async def closed_batch(store: Store, labels: str) -> str | None:
    """Return the name of a closed batch among the groups in the stored text of labels, or None."""
    for name in groups_joined(labels):
        batch = await store.get(name)
        if batch is not None and batch.job_type == BATCH and (batch.is_terminal or "closed" in batch.record):
            return name
    return None


async def refuse_foreign_batches(store: Store, after: Any) -> None:
    """Raise InvalidInputError for a batch object of another store, where a batch of the same name may exist.

    Two URLs may stand for one store, so the records are compared if these differ.
    """
    for one in after if isinstance(after, Sequence) and not isinstance(after, str) else ():
        name = getattr(one, "awaited", "").removeprefix("group:")
        if not name:
            continue
        own: Store | None = one.store
        if own is None:
            raise InvalidInputError(
                "after",
                f"batch {name!r:.140} belongs to a server; give 'group:{name:.140}' if that server uses this store",
            )
        if own.url == store.url:
            continue
        theirs, ours = await own.with_blocking(blocking=store.blocking).get(name), await store.get(name)
        if theirs is None or ours is None or theirs.record["created_by_op"] != ours.record["created_by_op"]:
            raise InvalidInputError(
                "after",
                f"batch {name!r:.140} is in the store {own.url}, not in {store.url}; submit the job to its store",
            )
