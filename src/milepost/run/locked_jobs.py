"""Writes of many jobs, of which another transaction may have locked some: only those are left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from milepost.core.errors import LeaseHeldError
from milepost.stores.protocol import MAX_CHARACTERS, NOT_WRITTEN, Store, Write, WriteResult

MAX_LOCKED = 2
"""How many locked jobs one call waits for, one after another."""


class LockedJobs:
    """The jobs whose record, id or unique key another transaction had locked at the last call of `apply`."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._ids: set[str] = set()

    @property
    def ids(self) -> frozenset[str]:
        """The ids of these jobs."""
        return frozenset(self._ids)

    async def apply(self, store: Store, writes: list[Write]) -> list[WriteResult]:
        """Apply writes together, but each by itself if a job is locked, those last that were locked before.

        What is locked is left to a later call, and its result is NOT_WRITTEN. Each lock is waited for, so a call tries
        only some of them.
        """
        outcomes = [NOT_WRITTEN] * len(writes)
        self._ids &= {write.job_id for write in writes}
        single: list[int] = []
        for places in _requests(writes, [n for n, write in enumerate(writes) if write.job_id not in self._ids]):
            try:
                together = (await store.apply([writes[place] for place in places])).outcomes
            except LeaseHeldError:
                single += places
                continue
            for place, outcome in zip(places, together, strict=True):
                outcomes[place] = outcome
        left = MAX_LOCKED
        for place in [*single, *(n for n, write in enumerate(writes) if write.job_id in self._ids)]:
            job_id = writes[place].job_id
            try:
                outcomes[place] = (await store.apply([writes[place]])).outcomes[0]
                self._ids.discard(job_id)
            except LeaseHeldError as error:
                self._log.warning("job %s: left out: %s", job_id, error)
                self._ids.add(job_id)
                left -= 1
                if left == 0:
                    break
        return outcomes


def _requests(writes: list[Write], places: list[int]) -> Iterator[list[int]]:
    """Yield the places of writes, in order, in lists that fit into one request."""
    part: list[int] = []
    size = 0
    for place in places:
        if part and size + writes[place].size > MAX_CHARACTERS:
            yield part
            part, size = [], 0
        part.append(place)
        size += writes[place].size
    if part:
        yield part
