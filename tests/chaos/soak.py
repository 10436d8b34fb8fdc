"""The soak: real worker processes with short leases, killed and frozen at random, while clients submit, cancel and delete.

Owns the weather. Everything is drawn from one seed, which is printed; what the workers do under it is the checker's.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from milepost import Jobs, Settings
from milepost.core.errors import Refused
from milepost.stores.driving import drive
from tests.chaos.checker import History, Told, collect

ROOT = Path(__file__).resolve().parents[2]
LEASE, SWEEP, GRACE = 0.5, 0.1, 0.5
PROGRAM = (
    "from tests.chaos.application import jobs; from milepost.worker import run_worker; "
    "raise SystemExit(run_worker(jobs, concurrency=6))"
)


@dataclass(frozen=True)
class Plan:
    """How much of each."""

    jobs: int = 400
    workers: int = 3
    kills: int = 12
    zombies: int = 4
    drains: int = 4
    cancels: int = 40
    deletes: int = 20
    poison: int = 3
    isolated: float = 0.05
    rest_seconds: float = 240.0


class Soak:
    """One soak on one store."""

    def __init__(self, url: str, namespace: str, folder: Path, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.random = random.Random(seed)
        self.ledger = folder / "ledger.jsonl"
        self.told = Told()
        self.did = {"kills": 0, "zombies": 0, "drains": 0, "cancels": 0, "deletes": 0}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **os.environ,
            "MILEPOST_URL": url,
            "MILEPOST_NAMESPACE": namespace,
            "MILEPOST_LEASE": str(LEASE),
            "MILEPOST_SWEEP": str(SWEEP),
            "MILEPOST_GRACE": str(GRACE),
            "MILEPOST_PULSE": "0.05",
            "LEDGER": str(self.ledger),
            "PYTHONPATH": str(ROOT),
        }
        options = Settings(namespace=namespace, lease=LEASE, sweep=SWEEP, grace=GRACE, pulse=0.05)
        self.client = Jobs(url, options=options)

    def run(self) -> History:
        """Submit, disturb, wait for rest; what is known then."""
        try:
            for _ in range(self.plan.workers):
                self._start()
            self._weather()
            self._wait_for_rest()
            counts = {pair: count for pair, count in drive(self.client.store.counts()).items() if count}
            return collect(self.client, self.told, self.ledger, counts)
        finally:
            for process in self._processes:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.wait()
            self.client.close()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=self._environment, cwd=ROOT)
        self._processes.append(process)
        return process

    def _alive(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self._processes if process.poll() is None]

    def _weather(self) -> None:
        plan = self.plan
        acts = (
            ["submit"] * plan.jobs + ["poison"] * plan.poison + ["kill"] * plan.kills + ["freeze"] * plan.zombies
            + ["drain"] * plan.drains + ["cancel"] * plan.cancels + ["delete"] * plan.deletes
        )  # fmt: skip
        self.random.shuffle(acts)
        for act in acts:
            getattr(self, f"_{act}")()
            for _ in range(plan.workers - len(self._alive())):
                self._start()

    def _submit(self, job_type: str | None = None) -> None:
        draw = self.random
        chosen = job_type or (
            "isolated" if draw.random() < self.plan.isolated else draw.choice(["threaded", "awaited"])
        )
        asked = {"steps": draw.randint(1, 12), "pause": round(draw.uniform(0.005, 0.08), 3), "fails": 0.01}
        job = self.client.enqueue(chosen, {} if chosen == "poison" else asked, max_attempts=4)
        self.told.submitted[job.job_id] = asked

    def _poison(self) -> None:
        self._submit("poison")

    def _kill(self) -> None:
        self._pause_for_work()
        victim = self.random.choice(self._alive() or [self._start()])
        victim.kill()
        victim.wait()
        self.did["kills"] += 1

    def _drain(self) -> None:
        victim = self.random.choice(self._alive() or [self._start()])
        victim.send_signal(signal.SIGTERM)
        self.did["drains"] += 1

    def _freeze(self) -> None:
        """Past its lease, and back: a zombie."""
        self._pause_for_work()
        victim = self.random.choice(self._alive() or [self._start()])
        victim.send_signal(signal.SIGSTOP)
        time.sleep(LEASE * 3)
        victim.send_signal(signal.SIGCONT)
        self.did["zombies"] += 1

    def _pause_for_work(self) -> None:
        time.sleep(self.random.uniform(0.1, 0.6))

    def _cancel(self) -> None:
        victims = list(self.told.submitted.keys() - self.told.deleted - self.told.cancelled)
        if not victims:
            return
        job_id = self.random.choice(sorted(victims)[-60:])
        with suppress(Refused):
            self.client.cancel_job(job_id, "by the soak")
            self.told.cancelled.add(job_id)
            self.did["cancels"] += 1

    def _delete(self) -> None:
        victims = list(self.told.submitted.keys() - self.told.deleted - self.told.cancelled)
        if victims:
            job_id = self.random.choice(sorted(victims)[-60:])
            self.client.delete_job(job_id)
            self.told.deleted.add(job_id)
            self.did["deletes"] += 1

    def _wait_for_rest(self) -> None:
        """Until nothing is pending, running or stopping any more."""
        deadline = time.monotonic() + self.plan.rest_seconds
        while time.monotonic() < deadline:
            for _ in range(self.plan.workers - len(self._alive())):
                self._start()
            waiting = sum(self.client.count_jobs(status=status) for status in ("pending", "running"))
            if not waiting and not drive(self.client.store.stoppings()):
                return
            time.sleep(0.1)
