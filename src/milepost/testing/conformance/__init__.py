"""The conformance suite for stores: every scenario, written once against `milepost.stores.protocol.Store`.

The test of a store is two factories, each a fixture that gives a function which opens a store on an empty place::

    class TestMyStore(Conformance):
        @pytest.fixture
        def blocking(self, tmp_path):
            return lambda: MyStore(tmp_path / new_op(), blocking=True)

        @pytest.fixture
        def asynchronous(self, tmp_path):
            return lambda: MyStore(tmp_path / new_op(), blocking=False)

A store for which a scenario cannot hold says so at its own test, by overriding the method with the reason.
"""

from milepost.testing.conformance.cells import Cells
from milepost.testing.conformance.language import Language
from milepost.testing.conformance.runs import Batches, Keeping, Repeats, Runs
from milepost.testing.conformance.stopping import Leases, Stopping

__all__ = ["Conformance"]


class Conformance(Cells, Language, Runs, Repeats, Batches, Keeping, Stopping, Leases):
    """All scenarios."""
