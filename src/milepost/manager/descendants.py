"""Changes of a job that concern other jobs too: its children, the members of a batch, and those cancelled because of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

from milepost.core.errors import IllegalTransitionError
from milepost.core.job import Job, JobStatus
from milepost.core.placement import groups_of
from milepost.core.serialization import CHILD_ID, single_line
from milepost.core.transitions import plan_cancel, plan_delete, plan_retry
from milepost.manager.validation import rejection_error
from milepost.run.locked_jobs import LockedJobs
from milepost.stores.protocol import Select, Store, Write
from milepost.stores.query import position

log = logging.getLogger("milepost.descendants")

PAGE = 500


async def delete(store: Store, job_id: str, new_operation_id: Callable[[], str]) -> None:
    """Delete a job, and all that its runs have made. Raises IllegalTransitionError for a single child of an open parent."""
    if CHILD_ID.match(job_id):
        job = await store.get(job_id)
        if job is not None:
            await refuse_child(store, job)
    outcome = (await store.apply([Write(job_id, plan_delete(new_operation_id()), answer=False)])).outcomes[0]
    if outcome.wait:
        raise rejection_error(outcome, job_id, "delete")
    await delete_below(store, job_id, new_operation_id)


async def delete_below(store: Store, job_id: str, new_operation_id: Callable[[], str]) -> None:
    """Delete all that the runs of a job have made, and what they have made in turn."""
    left = [job_id]
    while left:
        parent = left.pop()
        async for page in _pages(store, (":parent_id", parent)):
            made = [job.job_id for job in page if job.child_key is not None and "detached" not in job.record]
            if made:
                await store.apply([Write(one, plan_delete(new_operation_id()), answer=False) for one in made])
            left += made


async def cancel_members_of_batch(
    store: Store, batch_id: str, new_operation_id: Callable[[], str], *, by: str | None, why: str | None = None
) -> bool:
    """Cancel the open members of a batch that was cancelled; return whether any was."""
    text = single_line(f"batch {batch_id} was cancelled" + (f": {why}" if why else ""))
    return await cancel_members(store, f"group:{batch_id}", new_operation_id, by=by, why=text)


async def cancel_members(
    store: Store, group: str, new_operation_id: Callable[[], str], *, by: str | None, why: str
) -> bool:
    """Cancel the open members of a group, also those that its running members add meanwhile; return whether any was.

    What another transaction has locked is left out: a repeated call cancels it.
    """
    locked = LockedJobs(log)
    found = False
    while ids := await store.open_members(group, PAGE):
        cancels = [Write(one, plan_cancel(new_operation_id(), by=by, why=why), answer=False) for one in ids]
        before = locked.ids
        cancelled = any(one.accepted for one in await locked.apply(store, cancels))
        found = found or cancelled
        if not cancelled and locked.ids == before:
            return found
    return found


async def refuse_child(store: Store, job: Job) -> None:
    """Raise IllegalTransitionError for the delete of a single child of an open parent."""
    if job.child_key is None or job.parent_id is None:
        return
    parent = await store.get(job.parent_id)
    if parent is not None and not parent.is_terminal:
        text = f"Cannot delete job {job.job_id}: it is a child of job {parent.job_id}, which is {parent.status}"
        raise IllegalTransitionError(f"{text}; cancel the child, or delete its parent", job=job)


async def retry_dependents(store: Store, job: Job, new_operation_id: Callable[[], str]) -> None:
    """Put back the jobs that were cancelled because of this one, and those cancelled because of them.

    They wait again for what they follow.
    """
    left = [job]
    while left:
        member = left.pop()
        for group in groups_of(member.job_id, member.record):
            async for page in _pages(store, (":after", group), JobStatus.CANCELLED):
                waiters = [one for one in page if one.record.get("failed_member") == member.job_id]
                writes = [Write(one.job_id, plan_retry(new_operation_id(), waits=True)) for one in waiters]
                outcomes = (await store.apply(writes)).outcomes if writes else []
                left += [outcome.job for outcome in outcomes if outcome.accepted and outcome.job is not None]


async def _pages(store: Store, label: tuple[str, str], status: JobStatus | None = None) -> AsyncIterator[list[Job]]:
    select = Select(labels=(label,), statuses=(status.value,) if status is not None else ())
    after = None
    while page := await store.select(select, PAGE, after):
        yield page
        if len(page) < PAGE:
            return
        after = position(page[-1])
