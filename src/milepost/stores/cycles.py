"""Jobs that wait for themselves: refusals of new ones, and the search for those that were created nevertheless."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.placement import (
    after_groups,
    awaited_groups,
    groups_of,
    is_batch,
    member_groups,
    members_pair,
    parent_of,
)
from milepost.stores.protocol import Position, Select, Store
from milepost.stores.query import position

LOOKED_AT = 1000
"""The most groups and jobs together that are read for one new job."""
_ITSELF = "the job itself is a member of it"

_Waits = list[tuple[str, list[str]]]
"""Jobs, each with groups."""


async def refuse_cycle(store: Store, fields: Mapping[str, str]) -> None:
    """Raise InvalidInputError if a new record with these fields would wait for itself."""
    await CycleSearch(store).refuse(fields)


async def cycle_warnings(store: Store) -> list[str]:
    """Return a warning if jobs are flagged because they wait for themselves. Read at most LOOKED_AT flagged jobs."""
    flagged = await store.select(Select(statuses=("pending",), stalled=True), LOOKED_AT)
    jobs = [job for job in flagged if "cycle_check" in job.record and "held" in job.record]
    if not jobs:
        return []
    names = ", ".join(job.job_id for job in jobs[:3]) + (", ..." if len(jobs) > 3 else "")
    return [
        f"jobs that wait for themselves and will never start: {len(jobs):,} ({names}); {jobs[0].job_id}: {jobs[0].stalled}"
    ]


class Cycle(NamedTuple):
    """A cycle: the awaited group `entry` does not close before job `waiter` ends, which waits for a `group` of the job."""

    entry: str
    waiter: str
    group: str


class Progress:
    """How far a search has come, from both ends."""

    def __init__(self, entries: Iterable[str], inside: Iterable[str]) -> None:
        self.ahead = {entry: entry for entry in entries}
        """A group that has to close first -> the entry that leads to it."""
        self.behind = {group: (group, "") for group in inside}
        """A group that stays open till then -> where from, and the first waiter."""
        self.next_ahead: deque[tuple[str, Position | None]] = deque((group, None) for group in self.ahead)
        self.next_behind: deque[tuple[str, Position | None]] = deque((group, None) for group in self.behind)

    @property
    def is_over(self) -> bool:
        """Return whether everything at one of the ends was seen."""
        return not (self.next_ahead and self.next_behind)


class CycleSearch:
    """Searches for records that wait for themselves. It reads each group once, for all records of a request or of a sweep.

    A search costs nothing unless the record has `after` and is a member of a group, or a child. It goes from both ends, the
    smaller one first: from the groups that the record waits for to those that their members wait for, and from its own groups
    to those of the jobs that wait for them. One end is usually short: nothing waits for a group that is still being filled.

    A request reads no more than LOOKED_AT, and does not see what another one creates at the same time. So a sweep looks
    again at jobs that are held for long (`check`), with `reads` in one sweep, and continues in the next one.
    """

    def __init__(self, store: Store, reads: int = 0) -> None:
        self._store = store
        self._read: dict[str, Job | None] = {}
        self._followers: dict[tuple[str, Position | None], tuple[_Waits, Position | None]] = {}
        self._awaited: dict[tuple[str, Position | None], tuple[_Waits, Position | None]] = {}
        self._left = reads

    @property
    def is_spent(self) -> bool:
        """Return whether no reads are left."""
        return self._left <= 0

    async def refuse(self, fields: Mapping[str, str]) -> None:
        """Raise InvalidInputError if a new record with these fields would wait for itself."""
        entries, own = after_groups(fields.get("labels", "")), member_groups(fields)
        if not entries or not own:
            return
        self._left = LOOKED_AT
        inside = await self._inside(own, fields)
        if (problem := await self._search(Progress(entries, inside), inside)) is not None:
            raise InvalidInputError("after", f"{problem}; omit it")

    async def refuse_join(self, job: Job) -> None:
        """Raise InvalidInputError if a child of a run waits, through other jobs, for the run, which is about to wait for it."""
        self._left = LOOKED_AT
        cycle = await self._advance(Progress([f"children:{job.job_id}"], groups_of(job.job_id, job.record)))
        if cycle is not None:
            raise InvalidInputError(
                "run.join()",
                f"would never return: a child waits for job {cycle.waiter}, which waits for {cycle.group:.170}; "
                "cancel one of these jobs",
            )

    async def check(self, job: Job, progress: Progress | None) -> tuple[str, Progress]:
        """Continue the search for a held job. Return how it waits for itself, else an empty text, and how far the search has come."""
        inside = await self._inside(groups_of(job.job_id, job.record), job.record)
        progress = progress or Progress(_awaited(job), inside)
        problem = await self._search(progress, inside)
        return "" if problem is None else f"{problem}; cancel one of these jobs", progress

    async def _inside(self, own: Iterable[str], fields: Mapping[str, str]) -> dict[str, str]:
        """Return the groups that stay open while a record waits, and why."""
        inside = {group: "that is the job itself" if group.startswith("job:") else _ITSELF for group in own}
        for parent in await self._open_parents(fields):
            inside = dict.fromkeys(groups_of(parent.job_id, parent.record), "a parent of the job is in it") | inside
        return inside

    async def _search(self, progress: Progress, inside: Mapping[str, str]) -> str | None:
        """Return how a record waits for itself, None if that is not known."""
        for entry in progress.ahead:
            if entry in inside:
                return f"{entry!r:.170} would never close: {inside[entry]}"
        cycle = await self._advance(progress)
        if cycle is None:
            return None
        why = inside.get(cycle.group, _ITSELF)
        return f"{cycle.entry!r:.170} would never close: job {cycle.waiter} waits for {cycle.group:.170}, and {why}"

    async def _advance(self, progress: Progress) -> Cycle | None:
        """Return the cycle, if one is found before the reads are spent or the search is over."""
        ahead, behind = progress.ahead, progress.behind
        while not progress.is_over and self._left > 0:
            if len(progress.next_behind) <= len(progress.next_ahead):
                group, after = progress.next_behind.popleft()
                origin, first = behind[group]
                jobs, rest = await self._following(group, after)
                if rest is not None:
                    progress.next_behind.append((group, rest))
                for job_id, groups in jobs:
                    for found in groups:
                        if found in ahead:
                            return Cycle(ahead[found], first or job_id, origin)
                        if found not in behind:
                            behind[found] = (origin, first or job_id)
                            progress.next_behind.append((found, None))
            else:
                group, after = progress.next_ahead.popleft()
                jobs, rest = await self._awaited_by_members(group, after)
                if rest is not None:
                    progress.next_ahead.append((group, rest))
                for job_id, groups in jobs:
                    for found in groups:
                        if found in behind:
                            origin, first = behind[found]
                            return Cycle(ahead[group], first or job_id, origin)
                        if found not in ahead:
                            ahead[found] = ahead[group]
                            progress.next_ahead.append((found, None))
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

    async def _following(self, group: str, after: Position | None) -> tuple[_Waits, Position | None]:
        """Return jobs that wait for a group, each with the groups that it keeps open, and where to read on."""
        if (group, after) not in self._followers:
            jobs, rest = await self._select((":after", group), after)
            kind, _, name = group.partition(":")
            if after is None and kind != "job" and (owner := await self._get(name)) is not None:
                jobs.append(owner)  # the parent of the children, or the batch
            waits = [(job.job_id, groups_of(job.job_id, job.record)) for job in jobs if group in _awaited(job)]
            self._followers[group, after] = waits, rest
        return self._followers[group, after]

    async def _awaited_by_members(self, group: str, after: Position | None) -> tuple[_Waits, Position | None]:
        """Return members of a group that wait, each with the groups for which it does, and where to read on."""
        if (group, after) not in self._awaited:
            name, _, value = members_pair(group).partition("=")
            rest = None
            if name:
                jobs, rest = await self._select((name, value), after)
                jobs = [job for job in jobs if group in member_groups(job.record)]
            else:
                jobs = [job for job in [await self._get(group.partition(":")[2])] if job is not None]
            waits = [(job.job_id, groups) for job in jobs if (groups := _awaited(job))]
            self._awaited[group, after] = waits, rest
        return self._awaited[group, after]

    async def _select(self, label: tuple[str, str], after: Position | None) -> tuple[list[Job], Position | None]:
        limit = max(1, self._left)
        jobs = await self._store.select(Select(labels=(label,), statuses=("pending",)), limit, after)
        self._left -= 1 + len(jobs)
        return jobs, position(jobs[-1]) if len(jobs) == limit else None

    async def _get(self, job_id: str) -> Job | None:
        if job_id not in self._read:
            self._left -= 1
            self._read[job_id] = await self._store.get(job_id)
        return self._read[job_id]


def _awaited(job: Job) -> list[str]:
    """Return the groups without whose end a job does not start, or a batch does not end; none for a job that starts in any
    case, or waits for an answer.
    """
    record = job.record
    if job.is_terminal:
        return []
    if is_batch(job):
        return [f"group:{job.job_id}"]
    if "held" not in record or "wake_at" in record:
        return []
    return [] if "suspended" in record and "wait_groups" not in record else awaited_groups(record)
