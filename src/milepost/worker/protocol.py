"""The part of an application that running jobs needs, by milepost's workers or by an external task queue."""

from __future__ import annotations

from typing import Protocol

from milepost.run.runtime import Runtime
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.worker.handlers import Handlers


class Application(Protocol):
    """A `Jobs` or `AsyncJobs`."""

    @property
    def handlers(self) -> Handlers:
        """Return the handlers by job type."""

    @property
    def store(self) -> Store:
        """Return the store of the jobs."""

    @property
    def settings(self) -> Settings:
        """Return the settings, such as lease, heartbeat and grace period."""

    @property
    def runtime(self) -> Runtime:
        """Return the heartbeat, shared with the manager, and what it works with."""
