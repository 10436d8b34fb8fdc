"""What a change may read of the store besides its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from milepost.core.placement import Members, Record


@dataclass(frozen=True, slots=True)
class DrainingLease:
    """A lease whose code was asked to stop. It outlives the record and keeps the id, the unique key and the slot taken."""

    token: str
    expires: int
    key: str = ""
    slot: str = ""
    worker: str = ""
    groups: str = ""
    """The groups that its job is a member of, separated by US; they stay open until the code has stopped."""


class StoreFacts(Members, Protocol):
    """What a change may read of the store, at one instant."""

    @property
    def now(self) -> int:
        """Return the store's clock, in microseconds since 1970."""

    def other(self, job_id: str) -> Record | None:
        """Return the status, the type and the token of the record of another id, at least, or None."""

    def knows(self, group: str) -> bool:
        """Return whether the job of ``job:ID`` or ``children:ID`` has a record, or a record is in ``group:NAME``."""

    def stopping(self, job_id: str) -> DrainingLease | None:
        """Return the draining lease of an id, or None."""

    def key_is_draining(self, key: str) -> bool:
        """Return whether a draining lease has this unique key."""

    def key_owner_status(self, key: str, job_id: str) -> str:
        """Return the status of the other record that owns this unique key, or empty if there is none."""

    def next_fence(self) -> int:
        """Take a fence that is greater than every earlier one of the job."""

    def value_of(self, key: str) -> str | None:
        """Return the value of a key of the key-value store, or None if it does not exist or has expired."""
