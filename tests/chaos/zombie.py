"""One controlled zombie: a worker is frozen in a run, another one takes the job over, and the first continues and writes.

The order is fixed, so that a control without a guard always meets a write that the guard would have refused.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.history import History
from tests.chaos.ledger import Line, read
from tests.chaos.processes import Workers
from tests.chaos.soak import Soak, Targets
from tests.chaos.store_fixture import SoakStore
from tests.waiting import until

JOB = "job-000000"


class Zombie(Soak):
    """`Zombie("redis", checkpoint=True).run()`: the zombie sends a checkpoint too, else only its result."""

    def __init__(self, kind: str, *, checkpoint: bool, removed: str = "") -> None:
        super().__init__(
            kind, Targets(jobs=1, workers=1, kills=0, zombies=1, restarts=0, commits=0), 0, removed=removed
        )
        self._checkpoint = checkpoint

    def _environment(self, place: SoakStore) -> dict[str, str]:
        return {**super()._environment(place), "CHAOS_DEAF": "1"}

    def _busy(self, place: SoakStore) -> tuple[History, Counter[str]]:
        gates = self.ledger_path.parent
        workers = Workers(self._environment(place), self.targets.workers)
        try:
            workers.start_all()
            params = {"folder": str(gates), "checkpoint": self._checkpoint}
            self.ledger.write("submit", job=JOB, phase="asked", type="gated")
            self.direct.enqueue("gated", params, job_id=JOB)
            self.ledger.write("submit", job=JOB, phase="done", type="gated")
            [first] = self._until(lambda: self._starts(1))
            frozen = workers.alive[0]
            assert frozen.pid == first["pid"]
            # A job whose lease was never renewed would run next in a child process, which its worker can end.
            taken = self._lease()
            self._until(lambda: self._lease() > taken)
            workers.freeze(frozen)
            workers.replace_dead()
            _, second = self._until(lambda: self._starts(2))
            workers.thaw(frozen)
            open_gate(gates, first)
            self._until(lambda: self._has_ended(first))
            frozen.terminate()  # what it has to write is written before it ends
            frozen.wait(60 * self.scale)
            open_gate(gates, second)
            self._wait_for_the_end(workers, self._deadline())
            self._until(lambda: self._has_ended(second))
            workers.drain(60 * self.scale)
        finally:
            workers.kill_all()
        self._settle()
        return self._history(workers, [], []), Counter(zombies=1)

    def _starts(self, count: int) -> list[Line]:
        starts = [line for line in read(self.ledger_path) if line["do"] == "start"]
        return starts if len(starts) >= count else []

    def _has_ended(self, run: Line) -> bool:
        """Return whether the code has ended: it has written its end, or was refused before that."""
        lines = [line for line in read(self.ledger_path) if line.get("fence") == run["fence"]]
        return lines[-1]["do"] in ("end", "step") if self._checkpoint else lines[-1]["do"] == "end"

    def _lease(self) -> int:
        job = self.direct.get_job(JOB)
        assert job is not None
        return int(job.record["lease"])

    def _until(self, what: Callable[[], Any]) -> Any:
        return until(what, within=self._deadline() - time.monotonic())


def open_gate(folder: Path, run: Line) -> None:
    """Let the run of a ledger's line continue."""
    os.close(os.open(folder / f"gate-{run['pid']}", os.O_CREAT | os.O_WRONLY, 0o600))
