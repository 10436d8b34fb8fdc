"""Negative controls: the suite detects stores that release waiting jobs too early, too late or never."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from unittest import mock

import pytest

from milepost.core.transitions.change import Change, Record
from milepost.stores.memory.state import MemoryState
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import PurgeResult, SweepResult, WriteResult
from milepost.testing import FrozenClock
from milepost.testing.conformance.batches import BatchRecords
from milepost.testing.conformance.children import Children
from milepost.testing.conformance.group_members import GroupMembers
from milepost.testing.conformance.groups import After
from milepost.testing.conformance.retention import GroupRetention
from tests.conformance.failing_scenarios import failing_scenarios


class ForgetsDrainingLeases(MemoryState):
    """Counts a job as ended while its code is still stopping."""

    def is_open(self, group: str) -> bool:
        self.stops, stops = {}, self.stops
        try:
            return super().is_open(group)
        finally:
            self.stops = stops


class ForgetsRemovedMembers(MemoryState):
    def keep_end(self, job_id: str, record: object) -> None: ...


class KeepsRemovedMembers(MemoryState):
    def place(self, job_id: str) -> None:
        kept = dict(self.removed_members)
        super().place(job_id)
        self.removed_members = kept | self.removed_members


class MakesChildrenOfLostRuns(MemoryState):
    """Makes a child for a run that has lost its lease."""

    def other(self, job_id: str) -> Record | None:
        record = super().other(job_id)
        return None if record is None else {**record, "token": AnyToken()}  # type: ignore[dict-item]


class AnyToken(str):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        return True


class CancelsAllChildren(MemoryState):
    """Cancels the children of a parent whatever it is by then."""

    def other(self, job_id: str) -> Record | None:
        record = super().other(job_id)
        return None if record is None else {**record, "status": "cancelled"}


class LeavesOrphans(MemoryState):
    """Lets only the process that ended the parent cancel its children."""

    def is_to_release(self, group: str) -> bool:
        return not group.startswith("orphans:") and super().is_to_release(group)


class ForgetsWhoCloses(MemoryState):
    """Lets a batch end while its block is open."""

    def is_open(self, group: str) -> bool:
        members = self.indexes.get(("member", group, ""), [])
        return [one for one in members if one[0] != "g"] != [] if group == "group:g" else super().is_open(group)


class RemovesChildrenOfOpenParents(MemoryStore):
    """Removes each ended record on its own when its retention is over."""

    async def purge(self, *, before: int, limit: int = 500) -> PurgeResult:
        with mock.patch("milepost.stores.memory.retention.parent_by_run", return_value=""):
            return await super().purge(before=before, limit=limit)


class RemovesAwaitedMembers(MemoryStore):
    async def purge(self, *, before: int, limit: int = 500) -> PurgeResult:
        with mock.patch("milepost.stores.memory.retention.groups_of", return_value=[]):
            return await super().purge(before=before, limit=limit)


class Counting(MemoryStore):
    """Counts the ends of jobs instead of asking who is open: a job waits for as many ends as it names jobs."""

    def __init__(self, clock: FrozenClock) -> None:
        super().__init__(clock=clock)
        self._ends: Counter[str] = Counter()
        memory, ask = self._memory, self._memory.is_open
        memory.is_open = lambda group: ask(group) and not self._ends[group]  # type: ignore[method-assign]

    def _write(self, job_id: str, change: Change, answer: bool, *, whole: bool = False) -> WriteResult:
        outcome = super()._write(job_id, change, answer, whole=whole)
        if "completed" in self._memory.records.get(job_id, {}):
            self._ends[f"job:{job_id}"] += 1
        return outcome


class NeverSweepsGroups(MemoryStore):
    async def sweep(self, **options: object) -> SweepResult:  # type: ignore[override]
        self._memory.closing.clear()
        return await super().sweep(**options)  # type: ignore[arg-type]


class ReleasesOneSlice(MemoryStore):
    async def _apply_held(self, writes: Sequence[object]) -> list[WriteResult]:
        outcomes = await super()._apply_held(writes)  # type: ignore[arg-type]
        return [outcome._replace(branch=0) for outcome in outcomes]


def _over(state: type[MemoryState]) -> type[MemoryStore]:
    class Over(MemoryStore):
        def __init__(self, clock: FrozenClock) -> None:
            super().__init__(clock=clock)
            self._memory = state(clock)

    return Over


def failures(kind: type[MemoryStore]) -> set[str]:
    """Return the scenarios of waiting jobs that fail on a store."""
    return failing_scenarios(kind, After, GroupMembers, Children, BatchRecords, GroupRetention)


def test_right_store_passes() -> None:
    assert failures(MemoryStore) == set()


@pytest.mark.parametrize(
    ("kind", "scenario"),
    [
        (_over(ForgetsDrainingLeases), "test_release_waits_until_the_code_has_stopped"),
        (_over(ForgetsDrainingLeases), "test_stopping_member_keeps_its_group_open"),
        (_over(ForgetsRemovedMembers), "test_failure_outlives_a_delete"),
        (_over(ForgetsRemovedMembers), "test_failure_of_a_removed_member_is_kept"),
        (_over(KeepsRemovedMembers), "test_failure_outlives_a_delete"),
        (_over(MakesChildrenOfLostRuns), "test_child_is_made_under_the_token_of_its_parent_only"),
        (_over(CancelsAllChildren), "test_children_are_cancelled_in_each_state"),
        (_over(CancelsAllChildren), "test_retried_parent_keeps_its_children"),
        (_over(LeavesOrphans), "test_end_of_parent_cancels_open_children"),
        (_over(LeavesOrphans), "test_orphan_is_not_claimable_before_it_is_cancelled"),
        (_over(ForgetsWhoCloses), "test_batch_ends_when_it_is_closed_and_no_member_is_open"),
        (RemovesChildrenOfOpenParents, "test_ended_children_stay_with_their_open_parent"),
        (RemovesAwaitedMembers, "test_member_stays_while_an_open_job_waits_for_it"),
        (RemovesAwaitedMembers, "test_members_of_a_batch_stay_until_it_has_ended"),
        (Counting, "test_failure_is_decided_when_no_job_is_open"),
        (NeverSweepsGroups, "test_sweep_releases_what_a_dead_process_left"),
        (ReleasesOneSlice, "test_many_jobs_are_released_in_slices"),
    ],
)
def test_fault_is_detected(kind: type[MemoryStore], scenario: str) -> None:
    assert scenario in failures(kind)
