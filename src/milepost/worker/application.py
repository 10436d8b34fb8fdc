"""What running jobs needs of an application, whether a worker of ours runs them or an engine's."""

from __future__ import annotations

from typing import Protocol

from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.worker.handlers import Handlers


class Application(Protocol):
    """What is worked for: a `Jobs` or `AsyncJobs`."""

    @property
    def handlers(self) -> Handlers:
        """The functions that run jobs, by type."""

    @property
    def store(self) -> Store:
        """Where the jobs live."""

    @property
    def settings(self) -> Settings:
        """Lease, pulse and grace."""

    @property
    def ttl(self) -> float:
        """How many seconds an ended job is kept."""
