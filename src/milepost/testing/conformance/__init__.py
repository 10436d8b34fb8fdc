"""The conformance suite for stores: every scenario, written once against `milepost.stores.protocol.Store`.

To test a store, subclass `Conformance` with two fixtures that return a factory of new, empty stores::

    class TestMyStore(Conformance):
        @pytest.fixture
        def blocking(self, tmp_path):
            return lambda: MyStore(tmp_path / new_operation_id(), blocking=True)

        @pytest.fixture
        def asynchronous(self, tmp_path):
            return lambda: MyStore(tmp_path / new_operation_id(), blocking=False)

If a scenario cannot hold for a store, override the method in its test class and give the reason.
"""

from milepost.testing.conformance.answers import Answers
from milepost.testing.conformance.batches import BatchRecords
from milepost.testing.conformance.cancellation import Leases, Stopping
from milepost.testing.conformance.children import Children
from milepost.testing.conformance.claims import ClaimPolicy, Dispatching, Waking
from milepost.testing.conformance.clocks import Outages, SetClocks
from milepost.testing.conformance.concurrency import Concurrency, Promises
from milepost.testing.conformance.differential_test import Differential
from milepost.testing.conformance.events import Events, Feed
from milepost.testing.conformance.expiry import Expiry
from milepost.testing.conformance.group_members import GroupMembers
from milepost.testing.conformance.groups import After, Waits
from milepost.testing.conformance.idempotency import Idempotency
from milepost.testing.conformance.indexes import Indexes, Placement
from milepost.testing.conformance.kv import KeyValues, StoreItself
from milepost.testing.conformance.limits import Limits
from milepost.testing.conformance.lists import Lists
from milepost.testing.conformance.operations import Operations
from milepost.testing.conformance.output import Output
from milepost.testing.conformance.pauses import Pauses
from milepost.testing.conformance.rates import Rates
from milepost.testing.conformance.recovery import Retention, Sweeping
from milepost.testing.conformance.retention import GroupRetention
from milepost.testing.conformance.rollups import EndedJobs
from milepost.testing.conformance.round_trip import Batches, Large, RoundTrip
from milepost.testing.conformance.runs import Runs
from milepost.testing.conformance.schedules import Schedules
from milepost.testing.conformance.suspensions import Suspensions
from milepost.testing.conformance.transition_matrix import TransitionMatrix
from milepost.testing.conformance.usage import LedgerOfUsage

__all__ = ["Conformance"]


class Conformance(
    Operations, TransitionMatrix, Runs, Stopping, Leases, ClaimPolicy, Waking, Limits, Rates, Lists, Large, EndedJobs, Promises, Indexes, Placement, Waits, Suspensions, Answers, Pauses, Output, LedgerOfUsage, Schedules, After, GroupMembers, Children, BatchRecords, Events, Feed, Sweeping, Retention, GroupRetention,
    Outages, SetClocks, Expiry, Dispatching, Idempotency, Batches, RoundTrip, Concurrency, KeyValues, StoreItself, Differential,
):  # fmt: skip
    """All scenarios."""
