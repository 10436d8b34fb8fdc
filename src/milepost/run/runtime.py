"""The runtime of a manager: its store, settings and retention, and the heartbeat and sweeper that work with them."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from functools import cached_property

from milepost.core.errors import StoreFullError
from milepost.forks import Instances
from milepost.run.heartbeat import Heartbeat
from milepost.run.sweeper import Sweeper
from milepost.settings import Settings
from milepost.stores.clock import SYSTEM_CLOCK, Clock
from milepost.stores.ids import SYSTEM_IDS, Ids
from milepost.stores.protocol import Store


class Runtime:
    """What the runs, workers and server of one manager share. Managers share nothing, so each keeps its own settings.

    `ttl` is how many seconds an ended job is kept. A test passes its own `clock` and `ids` to own time and chance.
    """

    def __init__(
        self, store: Store, settings: Settings, ttl: float, *, clock: Clock = SYSTEM_CLOCK, ids: Ids = SYSTEM_IDS
    ) -> None:
        self.store = store
        self.settings = settings
        self.ttl = ttl
        self.clock = clock
        self.ids = ids
        self._heartbeats: dict[int, Heartbeat] = {}  # by process, without a lock that a fork could leave locked

    @property
    def heartbeat(self) -> Heartbeat:
        """Return the heartbeat of this process, created at the first call. Its thread starts with the first run."""
        pid = os.getpid()
        heartbeat = self._heartbeats.get(pid)
        if heartbeat is None:
            store = self.store.with_blocking(blocking=True)
            made = Heartbeat(store, self.settings, self.ttl, clock=self.clock, ids=self.ids)
            for other in set(self._heartbeats) - {pid}:
                self._heartbeats.pop(other, None)  # of the parent process
            heartbeat = self._heartbeats.setdefault(pid, made)
            _heartbeats.add(heartbeat)
        return heartbeat

    def end_heartbeat(self) -> None:
        """End the idle heartbeat of this process, so that it opens no connection after a close."""
        if (heartbeat := self._heartbeats.get(os.getpid())) is not None:
            heartbeat.end()

    @property
    def has_heartbeat(self) -> bool:
        """Return whether the thread of the heartbeat is running in this process. It also sweeps."""
        heartbeat = self._heartbeats.get(os.getpid())
        return heartbeat is not None and heartbeat.is_running

    @cached_property
    def sweeper(self) -> Sweeper:
        """Return a sweeper for code that has no heartbeat. It uses the store as it was given, blocking or async."""
        return Sweeper(self.store, self.settings, self.ttl, clock=self.clock, ids=self.ids)

    async def sweep_if_alone(self) -> None:
        """Sweep if it is time and no heartbeat of this process does."""
        if not self.has_heartbeat and self.sweeper.is_due:
            with suppress(StoreFullError):  # a full disk hides no jobs
                await self.sweeper.tick()

    def with_store(self, store: Store) -> Runtime:
        """Return a runtime with the other API of the same store, and with the same heartbeat."""
        other = Runtime(store, self.settings, self.ttl, clock=self.clock, ids=self.ids)
        other._heartbeats = self._heartbeats
        return other


_heartbeats: Instances[Heartbeat] = Instances()


@atexit.register
def _save_history() -> None:
    """Write the profiles of the last runs before the process ends."""
    for heartbeat in _heartbeats:
        if heartbeat.pid == os.getpid():
            heartbeat.save()
