"""Refusals of jobs that would wait for themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.placement import after_groups, awaited_groups, groups_of, member_groups, members_pair, parent_of
from milepost.stores.protocol import Select, Store

LOOKED_AT = 1000
"""The most groups and jobs together that are read for one new job."""


async def refuse_cycle(store: Store, fields: Mapping[str, str]) -> None:
    """Raise InvalidInputError if a new record with these fields would wait for itself."""
    await CycleSearch(store).refuse(fields)


class CycleSearch:
    """Searches for new records that would wait for themselves. It reads each group once, for all records of a request.

    A search costs nothing unless the record has `after` and is a member of a group, or a child. It goes from both ends, the smaller one
    first: from the groups that the record would wait for to those that their members wait for, and from its own groups to those
    of the jobs that wait for them. One end is usually short: nothing waits for a group that is still being filled.
    These edges never change, so that a later change of other jobs makes no cycle. What is beyond LOOKED_AT is not seen.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, Job | None] = {}
        self._followers: dict[str, list[tuple[str, list[str]]]] = {}
        self._awaited: dict[str, list[tuple[str, list[str]]]] = {}
        self._left = 0

    async def refuse(self, fields: Mapping[str, str]) -> None:
        """Raise InvalidInputError if a new record with these fields would wait for itself."""
        entries, own = after_groups(fields.get("labels", "")), member_groups(fields)
        if not entries or not own:
            return
        self._left = LOOKED_AT
        inside = dict.fromkeys(own, "the job itself is a member of it")
        for parent in await self._open_parents(fields):
            inside = dict.fromkeys(groups_of(parent.job_id, parent.record), "a parent of the job is in it") | inside
        for entry in entries:
            if entry in inside:
                raise InvalidInputError("after", f"{entry!r:.170} would never close: {inside[entry]}; omit it")
        if (found := await self._search(entries, inside)) is not None:
            entry, waiter, group = found
            raise InvalidInputError(
                "after",
                f"{entry!r:.170} would never close: job {waiter} waits for {group:.170}, and {inside[group]}; omit it",
            )

    async def refuse_join(self, job: Job) -> None:
        """Raise InvalidInputError if a child of a run waits, through other jobs, for the run, which is about to wait for it."""
        self._left = LOOKED_AT
        found = await self._search([f"children:{job.job_id}"], groups_of(job.job_id, job.record))
        if found is not None:
            _, waiter, group = found
            text = f"would never return: a child waits for job {waiter}, which waits for {group:.170}; cancel one of these jobs"
            raise InvalidInputError("run.join()", text)

    async def _search(self, entries: Iterable[str], inside: Iterable[str]) -> tuple[str, str, str] | None:
        """Return which of the awaited groups waits, through other jobs, for a group inside, with the first job that waits for the
        latter; None if none does.
        """
        ahead = {entry: entry for entry in entries}  # a group that has to close first -> the entry that leads to it
        behind = {
            group: (group, "") for group in inside
        }  # one that stays open till then -> where from, the first waiter
        next_ahead, next_behind = list(ahead), list(behind)
        while next_ahead and next_behind and self._left > 0:
            if len(next_behind) <= len(next_ahead):
                group = next_behind.pop(0)
                origin, first = behind[group]
                for job_id, groups in await self._following(group):
                    for found in groups:
                        if found in ahead:
                            return ahead[found], first or job_id, origin
                        if found not in behind:
                            behind[found] = (origin, first or job_id)
                            next_behind.append(found)
            else:
                group = next_ahead.pop(0)
                for job_id, groups in await self._awaited_by_members(group):
                    for found in groups:
                        if found in behind:
                            origin, first = behind[found]
                            return ahead[group], first or job_id, origin
                        if found not in ahead:
                            ahead[found] = ahead[group]
                            next_ahead.append(found)
        return None

    async def _open_parents(self, fields: Mapping[str, str]) -> list[Job]:
        """Return the open jobs above a child. What is above an ended one does not wait for it."""
        found: list[Job] = []
        while "child_key" in fields and self._left > 0:
            job = await self._get(parent_of(fields))
            if job is None or job.is_terminal:
                break
            found.append(job)
            fields = job.record
        return found

    async def _following(self, group: str) -> list[tuple[str, list[str]]]:
        """Return the jobs that wait for a group, each with the groups that it keeps open."""
        if group not in self._followers:
            jobs = await self._select((":after", group))
            if group.startswith("children:") and (parent := await self._get(group.partition(":")[2])) is not None:
                jobs.append(parent)
            self._followers[group] = [
                (job.job_id, groups_of(job.job_id, job.record)) for job in jobs if group in _awaited(job)
            ]
        return self._followers[group]

    async def _awaited_by_members(self, group: str) -> list[tuple[str, list[str]]]:
        """Return the members of a group that wait, each with the groups for which it does."""
        if group not in self._awaited:
            name, _, value = members_pair(group).partition("=")
            if name:
                jobs = [job for job in await self._select((name, value)) if group in member_groups(job.record)]
            else:
                jobs = [job for job in [await self._get(group.partition(":")[2])] if job is not None]
            self._awaited[group] = [(job.job_id, groups) for job in jobs if (groups := _awaited(job))]
        return self._awaited[group]

    async def _select(self, label: tuple[str, str]) -> list[Job]:
        jobs = await self._store.select(Select(labels=(label,), statuses=("pending",)), max(1, self._left))
        self._left -= 1 + len(jobs)
        return jobs

    async def _get(self, job_id: str) -> Job | None:
        if job_id not in self._read:
            self._left -= 1
            self._read[job_id] = await self._store.get(job_id)
        return self._read[job_id]


def _awaited(job: Job) -> list[str]:
    """Return the groups without whose end a job does not start; none for one that starts in any case, or waits for an answer."""
    record = job.record
    if job.is_terminal or "held" not in record or "wake_at" in record:
        return []
    return [] if "suspended" in record and "wait_groups" not in record else awaited_groups(record)
