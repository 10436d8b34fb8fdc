"""The faults of a soak, in an order that the seed decides, and the record of them."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.chaos.ledger import now
from tests.chaos.processes import Workers
from tests.chaos.store_fixture import SoakStore

if TYPE_CHECKING:
    from tests.chaos.soak import Targets

LOCK_SECONDS = 3.0


class Faults:
    """The faults of a soak in a random order, spread over the submits. `progress` tells how far those are, in [0, 1]."""

    def __init__(
        self,
        targets: Targets,
        place: SoakStore,
        workers: Workers,
        rng: random.Random,
        lease: float,
        progress: Callable[[], float],
    ) -> None:
        self._place = place
        self._workers = workers
        self._rng = rng
        self._lease = lease
        self._progress = progress
        self._timers: list[threading.Timer] = []
        self._number = 0
        self.deaths: list[tuple[int, int]] = []
        self.outages: list[tuple[int, int]] = []
        self.counts: Counter[str] = Counter()
        commits = targets.commits if place.kind == "sqlite" else 0
        self._todo: list[Callable[[], None]] = [
            *[self._kill] * targets.kills,
            *[self._freeze] * targets.zombies,
            *[self._lose] * targets.lost,
            *[self._outage] * targets.restarts,
            *[self._commit] * commits,
        ]
        rng.shuffle(self._todo)

    def run(self, until: float) -> None:
        """Do all of them, none before its share of the submits; give up at the deadline."""
        total = len(self._todo)
        for number, fault in enumerate(self._todo):
            while self._progress() < 0.97 * number / total and time.monotonic() < until:
                self.counts["workers that died by themselves"] += self._workers.replace_dead()
                time.sleep(0.02)
            if time.monotonic() > until:
                break
            fault()
            time.sleep(self._rng.uniform(0.0, 0.4) * self._lease)
        for timer in self._timers:
            timer.join()
        wait_until = time.monotonic() + 10
        while self._place.lost < self.counts["replies to lose"] and time.monotonic() < wait_until:
            self._workers.replace_dead()
            time.sleep(0.05)
        self.counts["replies lost"] = self._place.lost
        if self._place.kind == "sqlite":
            self.counts["kills in a commit"] = self._place.taken("commit") + self._place.taken("committed")

    def _worker(self) -> subprocess.Popen[bytes] | None:
        self._workers.replace_dead()
        return self._rng.choice(self._workers.alive) if self._workers.alive else None

    def _kill(self) -> None:
        if (worker := self._worker()) is not None:
            self.deaths.append(self._workers.kill(worker))
            self.counts["SIGKILLs"] += 1

    def _freeze(self) -> None:
        worker = self._worker()
        if worker is None:
            return
        self._workers.freeze(worker)
        self.counts["zombies"] += 1
        self._workers.replace_dead()
        timer = threading.Timer(self._rng.uniform(2.5, 4.0) * self._lease, self._workers.thaw, [worker])
        timer.start()
        self._timers.append(timer)

    def _lose(self) -> None:
        self._number += 1
        self._place.lose(self._number)
        self.counts["replies to lose"] += 1

    def _commit(self) -> None:
        self._number += 1
        self._place.kill_in_commit(self._number)

    def _outage(self) -> None:
        began = now()
        if self._place.server is not None:
            self._place.crash()
            time.sleep(self._rng.choice([0.0, 0.5, 2.0]) * self._lease)
            self._place.server.start()
            self.counts["crashes of the server"] += 1
        else:
            holder = self._place.hold_lock()
            time.sleep(LOCK_SECONDS)
            holder.communicate("\n")
            self.counts["locks held for 3 s"] += 1
        self.outages.append((began, now()))
