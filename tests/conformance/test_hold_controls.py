"""The conformance suite rejects stores whose sweep takes a live run for lost after an outage, or finds no lost run."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest

import milepost.stores.memory.store as memory_store
from milepost.stores.memory.store import MemoryStore
from milepost.stores.sweep import Hold, hold_of
from milepost.testing.conformance.clocks import Outages, SetClocks
from tests.conformance.failing_scenarios import failing_scenarios

Found = tuple[int | None, Hold | None]


def remembers_first_outage(now: int, last: int | None, hold: Hold | None, lease: int) -> Found:
    """An outage within a hold does not prolong it."""
    due, kept = hold_of(now, last, hold, lease)
    return due, kept and kept._replace(until=kept.since + lease)


def prolongs_without_end(now: int, last: int | None, hold: Hold | None, lease: int) -> Found:
    """Each late sweep prolongs the hold."""
    return hold_of(now, last, hold and hold._replace(since=max(hold.since, hold.until - lease)), lease)


def recovers_at_end(now: int, last: int | None, hold: Hold | None, lease: int) -> Found:
    """The first sweep after a hold recovers also leases that were renewed during it."""
    return (now, None) if hold is not None and now >= hold.until else hold_of(now, last, hold, lease)


def forgets_renewals_before_hold(now: int, last: int | None, hold: Hold | None, lease: int) -> Found:
    """Renewals between an outage and the first sweep after it do not count."""
    due, kept = hold_of(now, last, hold, lease)
    return (due if due is None or due == now else due + lease // 4 - 1), kept


@pytest.mark.parametrize(
    ("faulty", "failing"),
    [
        (
            remembers_first_outage,
            {
                "test_outage_that_ends_with_hold_recovers_no_live_run",
                "test_outage_after_step_back_recovers_no_live_run",
            },
        ),
        (prolongs_without_end, {"test_sweep_that_is_always_late_recovers_unrenewed_lease"}),
        (
            recovers_at_end,
            {
                "test_second_outage_within_hold_recovers_no_live_run",
                "test_repeated_outages_recover_no_live_run",
            },
        ),
        (forgets_renewals_before_hold, {"test_renewal_between_outage_and_sweep_counts"}),
    ],
)
def test_faulty_hold_is_rejected(faulty: Callable[..., Found], failing: set[str]) -> None:
    with mock.patch.object(memory_store, "hold_of", faulty):
        assert failing_scenarios(MemoryStore, Outages, SetClocks) >= failing
