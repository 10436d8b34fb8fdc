"""Apply changes and claims, each in one transaction: lock and read, decide in memory, write and commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from milepost.core.job import Job
from milepost.core.limits import earliest
from milepost.core.record_codec import large_fields
from milepost.core.transitions import operation_ids
from milepost.core.transitions.change import TransitionType
from milepost.stores.index_entries import WAITING_FOR_STOP
from milepost.stores.postgres.batch import Batch
from milepost.stores.postgres.claims import Start, asked_queues
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part, Transaction
from milepost.stores.postgres.members import OutsideMembers, groups_for, groups_in, others_in, parents_of
from milepost.stores.postgres.namespace import Namespace
from milepost.stores.protocol import INVALID_VALUE_ERRORS, ApplyResult, Claim, Write, WriteResult
from milepost.stores.rows import Row

PROMOTED = 500
"""The most scheduled records of a queue that one claim makes claimable, so that many retries due at once are spread."""

_RUN_WRITES = ("reports", "checkpoints", "steps")
_ASK_MEMBERS = ("known", "open", "failed", "hold", "blame")


class Needs(NamedTuple):
    """What a transition needs to know besides its record."""

    fences: int
    keys: bool
    takes_key: bool
    locks_lease: bool
    members: bool
    blames: bool
    parents: bool
    removes: bool
    values: tuple[int, ...]
    """The positions, among the values of a change, of the keys whose values it reads."""


@lru_cache(maxsize=1024)
def needs(transition: TransitionType) -> Needs:
    """Return what a transition needs: fences to take, the owners of unique keys, the expiry of its lease, its groups, its parent, values."""
    guards = [guard for branch in transition.branches for guard in branch.guards]
    words = [*guards, *(op for branch in transition.branches for op in branch.ops)]
    return Needs(
        max((sum(op[0] == "take" for op in branch.ops) for branch in transition.branches), default=0),
        transition.retention not in _RUN_WRITES,
        any(guard[0] == "unique" for guard in guards),
        any(guard[:2] in (("past", "lease"), ("ahead", "lease")) for guard in guards),
        any(word[0] in _ASK_MEMBERS for word in words),
        any(word[0] == "blame" for word in words),
        any(guard[0] in ("orphan", "parented") for guard in guards),
        any(("remove",) in branch.ops for branch in transition.branches),
        tuple({word[1] for word in words if word[0] == "value" and isinstance(word[1], int)}),
    )


class Writer:
    """The writes and the claim of one `apply`. The statement `after` runs after the commit; `afterwards` has its rows."""

    def __init__(self, tx: Transaction, namespace: Namespace, after: Part | None = None) -> None:
        self._tx = tx
        self._namespace = namespace
        self._after = [after] if after is not None else []
        self.afterwards: Rows = []
        self.closed: tuple[str, ...] = ()
        """The groups that have closed while jobs wait for them, as of an instant after the commit."""
        self.has_events = self.wakes_workers = False

    async def apply(self, writes: Sequence[Write], claim: Claim | None, bad: list[Exception]) -> ApplyResult:
        """Apply writes independently, then claim; an invalid write goes into `bad`, and the others are kept."""
        outcomes: list[WriteResult] = []
        parts: list[Part] = []
        groups: set[str] = set()
        if writes:
            batch = await self._read(writes)
            for write in writes:
                try:
                    outcomes.append(batch.write(write))
                except INVALID_VALUE_ERRORS as error:
                    bad.append(error)
            parts, groups = self._statements(batch), batch.groups_to_check
        marked = with_markers(outcomes)
        if claim is None or bad:
            parts = [*parts, ("large_get", {"ids": marked})] if marked else parts
            found = await self._commit(parts, groups)
            if marked:
                _fill(outcomes, found[-1])
            return ApplyResult(outcomes, [], None)
        return await self._claim(claim, parts, groups, outcomes, marked)

    async def _read(self, writes: Sequence[Write]) -> Batch:
        ids = sorted({write.job_id for write in writes})
        keys = sorted({write.change.key for write in writes if write.change.key is not None})
        wanted = [needs(write.change.transition) for write in writes]
        takers = [write.job_id for write, one in zip(writes, wanted, strict=True) if one.takes_key]
        parts: list[Part] = [("lock_keys", {"keys": keys, "ids": takers})] if keys or takers else []
        parts.append(("lock_jobs_to_remove" if any(one.removes for one in wanted) else "lock_jobs", {"ids": ids}))
        if any(one.locks_lease for one in wanted):
            parts.append(("lock_leases", {"ids": ids}))
        parts.append(("batch", {"ids": ids}))
        parts.append(("now_and_fences", {"fences": sum(one.fences for one in wanted)}))
        with_keys = any(one.keys for one in wanted)
        if with_keys:
            parts.append(("keys", {"ids": ids, "keys": keys}))
        members = OutsideMembers(ids)
        asking = [write for write, one in zip(writes, wanted, strict=True) if one.members]
        asked = members.ask(group for write in writes for group in groups_in(write.change))
        of_values = {
            write.change.values[at] or "" for write, one in zip(writes, wanted, strict=True) for at in one.values
        }
        if of_values:
            parts += [(name, {"keys": sorted(of_values)}) for name in ("kv_lock_all", "kv_read_all")]
        found = await self._tx.run(*asked, *parts)
        if asked:
            members.know(*found[: len(asked)])
        values: dict[str, str] = dict(found.pop()) if of_values else {}
        if of_values:
            found.pop()
        owners = found.pop() if with_keys else []
        ((now, fences),) = found.pop()
        batch = Batch(self._namespace.saw(now), fences, members)
        batch.values = values
        batch.know_records(found.pop())
        batch.know_keys(owners)
        locked = {job_id for (job_id,) in found[len(asked) + bool(keys or takers)]}
        if any(job_id not in locked and batch.record(job_id) is not None for job_id in ids):
            return await self._read(writes)  # created since the lock; without it, another change of it would be lost
        others = {job_id for write in writes for job_id in others_in(write.change)}
        of_children = [write for write, one in zip(writes, wanted, strict=True) if one.parents]
        parents = parents_of(batch.record(write.job_id) for write in of_children)
        if more := batch.others.ask(others.union(parents).difference(ids)):
            batch.others.know(*await self._tx.run(*more))
        if more := members.ask(group for write in asking for group in groups_for(batch.record(write.job_id))):
            members.know(*await self._tx.run(*more))
        if any(one.blames for one in wanted) and (more := members.ask_ends()):
            members.know_ends(*await self._tx.run(*more))
        return batch

    def _statements(self, batch: Batch) -> list[Part]:
        parts: list[Part] = list(batch.statements())
        self.has_events = self.has_events or batch.has_events
        self.wakes_workers = self.wakes_workers or batch.wakes_workers
        return parts

    async def _commit(self, parts: Sequence[Part], groups: set[str]) -> list[Rows]:
        """Write, commit, then look at these groups, and at those of transactions of callers. Return the rows of `parts`."""
        unsettled = self._namespace.unsettled
        asked: list[tuple[str, str | None]] = [(group, None) for group in sorted(groups)]
        asked += [(group, xid) for xid, some in unsettled.copy().items() for group in list(some)]
        after = list(self._after)
        if asked:
            names, xids = map(list, zip(*asked, strict=True))
            after.append(("closed_groups", {"groups": names, "xids": xids, "ids": []}))
        found = await self._tx.commit(*parts, after=after)
        if len(found) == len(parts):
            return found
        if self._after:
            self.afterwards = found[len(parts)]
        if asked:
            self.closed = tuple(dict.fromkeys(group for group, _, is_closed in found[-1] if is_closed))
            for _, xid, _ in found[-1]:
                unsettled.pop(xid, None)
        return found[: len(parts)]

    # --- claims ---

    async def _claim(
        self, claim: Claim, parts: list[Part], groups: set[str], outcomes: list[WriteResult], marked: list[str]
    ) -> ApplyResult:
        numbers = self._namespace.claim_numbers
        late = claim.number < numbers.get(claim.worker, 0)
        if not late:
            numbers[claim.worker] = claim.number
        asked = asked_queues(claim)
        parts = [*parts, ("large_get", {"ids": marked})] if marked else parts
        name = "claim_next" if claim.job_id is None else "claim_named"
        most = 0 if late else len(claim.starts)
        request = {**asked, "most": most, "more": 0, "job": claim.job_id, "refused": [], "promoted": PROMOTED}
        who = {"worker": claim.worker, "op": claim.operation_id}
        found = await self._tx.run(
            *parts, ("claim_plans", None), ("lock_keys_of_limits", asked), ("claim_repeated", who),
            ("claim_promote", request), ("claim_next_due", asked), (name, request), ("now", None),
        )  # fmt: skip
        locked, repeated, _, due, heads, ((now,),) = found[-6:]
        if marked:
            _fill(outcomes, found[len(parts) - 1])
        now, next_due = self._namespace.saw(now), due[0][0]
        if repeated and not late:
            (rows,) = await self._commit([("get_all", {"ids": repeated[0][0]})], groups)
            return ApplyResult(outcomes, [job_of(row) for row in rows], next_due, now)
        batch = Batch(now)
        rings = {key: some for key, in_turn, some, _ in locked if in_turn}
        start = Start(self._tx, batch, claim, most)
        turns = await (start.in_turn(heads, rings) if rings else start.by_age(name, request, heads))
        jobs = start.jobs
        last = [*self._statements(batch), *turns]
        if jobs:
            ids, until = [job.job_id for job in jobs], now + operation_ids.KEPT_MICROS
            last.append(("claim_put", {**who, "ids": ids, "until": until}))
        await self._commit(last, groups | batch.groups_to_check)
        return ApplyResult(outcomes, jobs, earliest(next_due, start.reopens), now)


def with_markers(results: Iterable[WriteResult | Job]) -> list[str]:
    """Return the ids of jobs that have markers in place of large values."""
    jobs = (found.job if isinstance(found, WriteResult) else found for found in results)
    return sorted({job.job_id for job in jobs if job is not None and large_fields(job.record)})


def job_of(found: tuple[Any, ...]) -> Job:
    """Return the job of a row with the section `columns`."""
    return Row(*found[:-1]).job(WAITING_FOR_STOP if found[-1] else None)


def _fill(outcomes: list[WriteResult], large: Rows) -> None:
    """Put large values in place of their markers."""
    values: dict[str, dict[str, str]] = {}
    for job_id, name, value in large:
        values.setdefault(job_id, {})[name] = value
    for index, outcome in enumerate(outcomes):
        if outcome.job is not None and outcome.job.job_id in values:
            job = Job.stored(outcome.job.job_id, {**outcome.job.record, **_large_values_of(outcome.job, values)})
            outcomes[index] = outcome._replace(job=job)


def _large_values_of(job: Job, values: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: values[job.job_id][name] for name in large_fields(job.record) if name in values[job.job_id]}
