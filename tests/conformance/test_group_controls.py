"""Negative controls: the suite detects stores that release waiting jobs too early, too late or never."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from milepost.core.transitions.operations import Change
from milepost.stores.memory.state import MemoryState
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import SweepResult, WriteResult
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from milepost.testing.conformance.group_members import GroupMembers
from milepost.testing.conformance.groups import After
from milepost.testing.conformance.harness import StoreFixture, scenarios_of


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
    found = set()
    for name, scenario, values in (*scenarios_of(After), *scenarios_of(GroupMembers)):
        clock = FrozenClock()
        try:
            run_sync(scenario(None, StoreFixture(kind(clock=clock), clock), **values))
        except AssertionError:
            found.add(name)
    return found


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
        (Counting, "test_failure_is_decided_when_no_job_is_open"),
        (NeverSweepsGroups, "test_sweep_releases_what_a_dead_process_left"),
        (ReleasesOneSlice, "test_many_jobs_are_released_in_slices"),
    ],
)
def test_fault_is_detected(kind: type[MemoryStore], scenario: str) -> None:
    assert scenario in failures(kind)
