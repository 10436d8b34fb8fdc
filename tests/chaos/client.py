"""The clients of a soak: they submit, cancel, delete and retry, and record each request and its answer."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from milepost import Jobs
from milepost.core.errors import OutcomeUnknownError, RejectedError, StoreError
from tests.chaos.ledger import Ledger

if TYPE_CHECKING:
    from tests.chaos.soak import Targets

PHASES = {True: "done", False: "refused"}


class Client:
    """Submits the jobs of a soak, and a little later cancels, deletes or retries some of them as the seed decides."""

    def __init__(self, jobs: Jobs, ledger: Ledger, targets: Targets, rng: random.Random, lease: float) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._targets = targets
        self._rng = rng
        self._lease = lease
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._submitted = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="chaos-client", daemon=True)
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        self._thread.join(60)

    def join(self) -> None:
        """Wait until everything has been asked."""
        self._thread.join(600)

    def progress(self) -> float:
        """Return the submitted share of the jobs, in [0, 1]."""
        return self._submitted / self._targets.jobs

    def _work(self) -> None:
        fates = self._fates()
        for number, (kind, fate) in enumerate(fates):
            if self._stopped.is_set():
                return
            self._act_due()
            self._submit(f"job-{number:06d}", kind, fate)
            self._submitted = number + 1
            self._stopped.wait(self._rng.uniform(0.0, 0.06) * self._lease / 0.5)
        while self._later and not self._stopped.is_set():
            self._stopped.wait(max(0.0, self._later[0][0] - time.monotonic()))
            self._act_due()

    def _fates(self) -> list[tuple[str, str]]:
        """Return the type of each job and what is done to it: as many of each as the targets say, in random order."""
        targets, rng = self._targets, self._rng
        plain = targets.jobs - targets.poison
        isolated = round(targets.jobs * targets.isolated)
        kinds = ["isolated"] * isolated
        kinds += rng.choices(["threaded", "awaiting", "limited", "failing"], [5, 3, 3, 1], k=plain - isolated)
        fates = ["cancel"] * targets.cancels + ["delete"] * targets.deletes + ["cancel-retry"] * (targets.cancels // 5)
        fates += ["again"] * (targets.deletes // 3) + ["late"] * (plain // 20) + ["early"] * (plain // 50)
        fates += ["key"] * (plain // 20)
        fates = (fates + [""] * plain)[:plain]
        for part in (kinds, fates):
            rng.shuffle(part)
        both = [*zip(kinds, fates, strict=True), *(("poison", how) for how in ["exit", "segfault"] * targets.poison)]
        both = both[: targets.jobs]
        rng.shuffle(both)
        return both

    def _submit(self, job_id: str, kind: str, fate: str) -> None:
        rng = self._rng
        params: dict[str, Any] = {
            "count": rng.randint(1, 6),
            "pause": rng.choice([0.0, 0.01, 0.05]) * self._lease / 0.5,
        }
        if fate in ("cancel", "cancel-retry", "delete", "again"):
            params = {"count": 10, "pause": 0.05 * self._lease / 0.5}
        options: dict[str, Any] = {"labels": {"fate": fate or "plain"}, "max_attempts": 2 if kind == "failing" else 3}
        note: dict[str, Any] = {"type": kind}
        if kind == "failing":
            params = {}
        options |= (place := _place(job_id, kind))
        note |= place
        if kind == "poison":
            params = {"how": fate}
            options["max_attempts"] = 1
        moment = datetime.now(UTC)
        if fate == "late":
            options["not_before"] = moment + timedelta(seconds=rng.uniform(0.5, 3.0) * self._lease)
            note["not_before"] = round(options["not_before"].timestamp() * 1_000_000)
        elif fate == "early":
            options["not_after"] = moment + timedelta(seconds=rng.uniform(0.1, 2.0) * self._lease)
            note["not_after"] = round(options["not_after"].timestamp() * 1_000_000)
        elif fate == "key":
            options["unique_key"] = note["key"] = f"key-{rng.randrange(3)}"
        self._call("submit", job_id, lambda: self._jobs.enqueue(kind, params, job_id=job_id, **options), **note)
        soon = rng.uniform(0.0, 2.0) * self._lease
        if fate in ("cancel", "cancel-retry"):
            self._plan(soon, lambda: self._cancel(job_id, fate))
        elif fate in ("delete", "again"):
            self._plan(soon, lambda: self._delete(job_id, fate, kind))

    def _cancel(self, job_id: str, fate: str) -> None:
        self._call("cancel", job_id, lambda: self._jobs.cancel_job(job_id, "the soak says so"))
        if fate == "cancel-retry":
            self._plan(self._rng.uniform(0.0, 1.0) * self._lease, lambda: self._retry(job_id))

    def _retry(self, job_id: str) -> None:
        self._call("retry", job_id, lambda: self._jobs.retry_job(job_id))

    def _delete(self, job_id: str, fate: str, kind: str) -> None:
        self._call("delete", job_id, lambda: self._jobs.delete_job(job_id))
        if fate == "again":
            params = {} if kind == "failing" else {"count": 3, "pause": 0.0}
            place = _place(job_id, kind)

            def submit() -> object:
                return self._jobs.enqueue(kind, params, job_id=job_id, max_attempts=3, **place)

            soon = self._rng.uniform(0.0, 0.5) * self._lease
            self._plan(soon, lambda: self._call("submit", job_id, submit, type=kind, **place))

    def _plan(self, seconds: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._later, (time.monotonic() + seconds, self._number, act))

    def _act_due(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()

    def _call(self, do: str, job_id: str, call: Callable[[], object], **note: Any) -> None:
        """Make one call and record its outcome.

        Repeat it while the store is unavailable, because nothing was written then.
        """
        self._ledger.write(do, job=job_id, phase="asked", **note)
        phase = "unknown"
        for _ in range(200):
            try:
                call()
                phase = "done"
            except RejectedError:
                phase = "refused"
            except OutcomeUnknownError:
                phase = "unknown"
            except StoreError:
                self.counts["calls refused because the store was unavailable"] += 1
                phase = "unavailable"
                if not self._stopped.wait(0.1):
                    continue
            break
        self._ledger.write(do, job=job_id, phase=phase, **note)
        self.counts[f"{do} {phase}"] += 1


def _place(job_id: str, kind: str) -> dict[str, Any]:
    """Return the option `partition` of a job, if its type has partitions."""
    return {"partition": "ab"[int(job_id[-1]) % 2]} if kind == "threaded" else {}
