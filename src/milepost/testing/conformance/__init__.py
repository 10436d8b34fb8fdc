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

from milepost.testing.conformance.agreeing import Agreeing
from milepost.testing.conformance.cells import Cells
from milepost.testing.conformance.claims import Claims, Waking
from milepost.testing.conformance.handing import Handing
from milepost.testing.conformance.keeping import Batches, Keeping
from milepost.testing.conformance.language import Language
from milepost.testing.conformance.lists import Lists
from milepost.testing.conformance.placed import Placed
from milepost.testing.conformance.repeats import Repeats
from milepost.testing.conformance.runs import Runs
from milepost.testing.conformance.sharing import Sharing
from milepost.testing.conformance.shelf import Itself, OnTheShelf
from milepost.testing.conformance.stopping import Leases, Stopping
from milepost.testing.conformance.sweeping import Retention, Sweeping
from milepost.testing.conformance.telling import Events, Feed

__all__ = ["Conformance"]


class Conformance(
    Language, Cells, Runs, Stopping, Leases, Claims, Waking, Lists, Placed, Events, Feed, Sweeping, Retention,
    Handing, Repeats, Batches, Keeping, Sharing, OnTheShelf, Itself, Agreeing,
):  # fmt: skip
    """All scenarios."""
