"""Writes the parts of kept results before a report names them, and deletes them after the end of the job.

A store removes them with the record, but not those that are written after that: a run may end later than its job is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from milepost.core.errors import StoreError
from milepost.core.record_codec import results_prefix
from milepost.core.serialization import from_json
from milepost.run.results import part_key, part_names
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync

log = logging.getLogger("milepost.run")

TTL_MARGIN = 30 * 86_400.0
"""Seconds for which parts outlive the retention of ended jobs, since a job may wait long for its next attempt."""


class HasParts(Protocol):
    """A run with kept results."""

    job_id: str

    def _take_parts(self, *, at_end: bool = False) -> list[tuple[str, str]]:
        """Return the parts since the last call, each with its key."""


class PartWriter:
    """Writes the parts for all runs of one heartbeat. Only its thread calls `write` and `delete_outdated`."""

    def __init__(self, store: Store, ttl: float) -> None:
        self._store = store
        self._ttl = ttl + TTL_MARGIN
        self._waiting: list[tuple[str, str]] = []
        self._outdated: list[str] = []
        self._has_parts: set[str] = set()
        self._ended: set[str] = set()

    def write(self, runs: Iterable[HasParts]) -> None:
        """Write the new parts of runs. A part that the store rejects waits for the next call.

        A report that names a missing part does no harm: the next attempt processes its items again. So this neither
        raises nor delays the lease renewals of the same beat.
        """
        for run in runs:
            self._take(run, run._take_parts())
        try:
            while self._waiting:
                key, text = self._waiting[0]
                run_sync(self._store.kv_put(key, text, ttl=self._ttl))
                del self._waiting[0]
        except StoreError as error:
            log.debug("kept results not written yet: %s", error)

    def leave(self, run: HasParts) -> None:
        """Take the parts that a run leaves at its end; the next beat writes them."""
        self._take(run, run._take_parts(at_end=True))
        if run.job_id in self._has_parts:
            self._ended.add(run.job_id)

    def _take(self, run: HasParts, parts: list[tuple[str, str]]) -> None:
        if parts:
            self._has_parts.add(run.job_id)
            self._waiting += parts

    def discard(self, job_id: str, cursors: str) -> None:
        """Delete the parts in the cursors of a completed job at the next `delete_outdated`."""
        self._ended.discard(job_id)
        self._has_parts.discard(job_id)
        for cursor in from_json(cursors).values():
            self._outdated += [part_key(job_id, name) for name in part_names(cursor)]

    def delete_outdated(self) -> None:
        """Delete the parts of completed and deleted jobs, after writing what ended runs have left. Raises StoreError."""
        self.write([])
        while self._ended and not self._waiting:
            job_id = next(iter(self._ended))
            if run_sync(self._store.get(job_id)) is None:
                self._outdated += [item.key for item in run_sync(self._store.kv_scan(results_prefix(job_id)))]
            self._ended.discard(job_id)
            self._has_parts.discard(job_id)
        while self._outdated:
            run_sync(self._store.kv_delete(self._outdated[-1]))
            self._outdated.pop()
