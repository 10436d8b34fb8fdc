"""The soak: clients, worker processes and faults on one store until every job has ended, and then a History to check.

Its choices come from one seed; the interleaving of processes does not. It ends when every job has ended, or at a
deadline that scales with the machine, which the checker then reports.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from milepost import Jobs, Settings
from milepost.core.errors import StoreError
from milepost.core.events import Event
from milepost.run.sweeper import Sweeper
from milepost.stores.sync_bridge import run_sync
from tests.chaos.calibration import calibrate
from tests.chaos.client import Client
from tests.chaos.fault_schedule import Faults
from tests.chaos.history import History, add_store
from tests.chaos.ledger import Ledger, read
from tests.chaos.processes import Workers
from tests.chaos.store_fixture import SoakStore
from tests.chaos.worker_app import SLOTS

NAMESPACE = "soak"
ROOT = str(Path(__file__).resolve().parents[2])

PER_PARTITION = 2
"""The most runs of each partition of the type `threaded`."""


@dataclass(frozen=True)
class Targets:
    """How much of everything. `lost`: replies. `restarts`: of the server; on SQLite locks held for 3 s, and `commits`: kills in one."""

    jobs: int = 400
    workers: int = 4
    kills: int = 12
    zombies: int = 3
    lost: int = 15
    restarts: int = 2
    commits: int = 4
    cancels: int = 60
    deletes: int = 30
    poison: int = 4
    isolated: float = 0.05

    def times(self, factor: float) -> Targets:
        """Return the same mix, larger or smaller."""
        scaled = {k: max(1, round(v * factor)) for k, v in asdict(self).items() if k not in ("workers", "isolated")}
        return replace(self, **scaled)


@dataclass
class Outcome:
    """What came of a soak."""

    seed: int
    store: str
    history: History
    counts: Counter[str]
    seconds: float
    lease: float

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return f"{self.store}, seed {self.seed}, {self.seconds:.0f} s: {counts}"


class Soak:
    """One soak on one store: `Soak("redis", Targets(), seed=1).run()`."""

    def __init__(
        self, kind: str, targets: Targets, seed: int, *, removed: str = "", slowness: float | None = None
    ) -> None:
        self.kind = kind
        self.targets = targets
        self.seed = seed
        self.scale = calibrate() if slowness is None else slowness
        self.lease = 0.5 * self.scale
        self._removed = removed
        self._feed: list[Event] = []
        self._over = threading.Event()

    def run(self) -> Outcome:
        """Run it to its end."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="soak-") as folder, SoakStore(self.kind, Path(folder)) as place:
            self.place = place
            self.ledger_path = Path(folder) / "ledger"
            self.settings = Settings(
                namespace=NAMESPACE,
                lease=self.lease,
                sweep=self.lease / 4,
                heartbeat=self.lease / 10,
                grace=self.lease * 2,
            )
            self.ledger = Ledger(self.ledger_path)
            # This process neither claims nor sweeps while the soak is on: what it sees is what workers have done.
            self.direct = Jobs(place.direct_url, options=self.settings)
            self.direct.limit("threaded", per_partition=PER_PARTITION)
            follower = threading.Thread(target=self._follow, name="chaos-follower")
            follower.start()
            try:
                history, counts = self._busy(place)
            finally:
                self._over.set()
                follower.join()
                self.direct.close()
                self.ledger.close()
        return Outcome(self.seed, place.version, history, counts, time.monotonic() - began, self.lease)

    def _busy(self, place: SoakStore) -> tuple[History, Counter[str]]:
        rng = random.Random(self.seed)
        workers = Workers(self._environment(place), self.targets.workers)
        through = Jobs(place.url, options=self.settings)
        client = Client(through, self.ledger, self.targets, random.Random(rng.random()), self.lease)
        faults = Faults(self.targets, place, workers, random.Random(rng.random()), self.lease, client.progress)
        try:
            workers.start_all()
            client.start()
            faults.run(until=self._deadline())
            client.join()
            self._wait_for_the_end(workers, self._deadline())
            workers.drain(60 * self.scale)
        finally:
            client.stop()
            workers.kill_all()
            through.close()
        self._settle()
        history = self._history(workers, faults.deaths, faults.outages)
        counts = faults.counts + client.counts + Counter(job.status.value for job in history.jobs.values())
        counts["runs"] = sum(line["do"] == "start" for line in history.runs)
        counts["events"] = len(history.feed)
        loops = [job for job in history.jobs.values() if job.failure is not None and job.failure.kind == "crash_loop"]
        counts["crash loops"] = len(loops)
        return history, counts

    def _environment(self, place: SoakStore) -> dict[str, str]:
        values = self.settings
        return {
            **os.environ,
            "MILEPOST_URL": place.url,
            "MILEPOST_NAMESPACE": NAMESPACE,
            "MILEPOST_LEASE": str(values.lease),
            "MILEPOST_SWEEP": str(values.sweep),
            "MILEPOST_HEARTBEAT": str(values.heartbeat),
            "MILEPOST_GRACE": str(values.grace),
            "CHAOS_LEDGER": str(self.ledger_path),
            "CHAOS_FAILPOINTS": str(place.failpoints),
            "CHAOS_REMOVED": self._removed,
            "PYTHONPATH": os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")])),
        }

    def _deadline(self) -> float:
        return time.monotonic() + (60 + 0.15 * self.targets.jobs + 2 * self.targets.kills) * self.scale

    # --- the feed ---

    def _follow(self) -> None:
        """Read each event from the first one on, also after outages."""
        position: str | None = "0"
        with contextlib.closing(Jobs(self.place.direct_url, options=self.settings)) as jobs:
            while True:
                last = self._over.is_set()
                try:
                    found = run_sync(jobs.store.feed(position, limit=1000))
                except StoreError:
                    self._over.wait(0.05)
                    continue
                if found.lost:
                    raise RuntimeError("the follower fell behind the feed")
                self._feed += found.events
                position = found.position
                if not found.events:
                    if last:
                        return
                    self._over.wait(0.05)

    # --- the end ---

    def _wait_for_the_end(self, workers: Workers, deadline: float) -> None:
        while time.monotonic() < deadline:
            workers.replace_dead()
            with contextlib.suppress(StoreError):
                counts = run_sync(self.direct.store.counts())
                if not any(n for (_, status), n in counts.items() if status in ("pending", "running")):
                    return
            time.sleep(0.1)

    def _settle(self) -> None:
        """Sweep until no draining lease is left: lease and sweep, twice, as I22 allows."""
        sweeper = Sweeper(self.direct.store, self.settings, self.direct.ttl)
        for _ in range(20):
            with contextlib.suppress(StoreError):
                run_sync(sweeper.sweep())
                if not run_sync(self.direct.store.draining_leases()):
                    return
            time.sleep(self.lease / 2)

    def _history(self, workers: Workers, deaths: list[tuple[int, int]], outages: list[tuple[int, int]]) -> History:
        self._over.set()
        for thread in threading.enumerate():
            if thread.name == "chaos-follower":
                thread.join()
        lines = read(self.ledger_path)
        history = History(
            runs=[line for line in lines if "fence" in line],
            calls=[line for line in lines if "phase" in line],
            feed=self._feed,
            children=workers.left(),
            limits={"limited": SLOTS},
            per_partition={"threaded": PER_PARTITION},
            deaths=deaths,
            outages=outages,
            patience=round((4 * self.lease + 10 * self.scale) * 1_000_000),
        )
        return add_store(history, self.direct.store)


def summary(outcome: Outcome, violations: list[str]) -> str:
    """Return the outcome as text, for a report."""
    most = 40
    shown: list[Any] = [str(outcome), *(f"  {line}" for line in violations[:most])]
    if len(violations) > most:
        shown.append(f"  and {len(violations) - most} more")
    return "\n".join(shown)
