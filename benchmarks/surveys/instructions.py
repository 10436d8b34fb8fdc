"""Instructions of the hot paths, counted by callgrind in the calling process and in Redis, independent of the machine's load.

Each figure is the difference between a long and a short run, so that start-up is not in it.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.environment import private_redis
from benchmarks.install import ROOT
from benchmarks.peers.milepost import application
from benchmarks.queue_peer import BULK
from benchmarks.surveys import Table

COLUMNS = ["one", "instructions of the caller", "instructions of Redis"]


def progress(url: str, count: int) -> None:
    """Call `update_job` of the blocking API with a progress and a message."""
    from milepost import RedisJobManager

    manager = RedisJobManager(url)
    job_id = manager.create_job().job_id
    manager.update_job(job_id, status="running")
    for _ in range(count):
        manager.update_job(job_id, progress=0.5, message="step 5 of 10")


def tracked(url: str, count: int) -> None:
    """Run a tracked block with ten reports."""
    from milepost import RedisJobManager

    manager = RedisJobManager(url)
    for _ in range(count):
        with manager.track("bench") as run:
            for step in range(10):
                run.progress(step / 10, f"step {step} of 10")
            run.result = {"text": "done"}


def submitted(url: str, count: int) -> None:
    """Call `jobs.submit` for each job."""
    jobs, noop = application(url)
    for _ in range(count):
        jobs.submit(noop)


def in_bulk(url: str, count: int) -> None:
    """Call `jobs.submit_many` with many jobs per call."""
    jobs, noop = application(url)
    for start in range(0, count, BULK):
        jobs.submit_many(noop, [{}] * min(BULK, count - start))


def drained(url: str, count: int) -> None:
    """Let a worker claim and finish the no-op jobs that exist."""
    from milepost import Jobs, Run
    from milepost.worker import registry, worker_state

    for module in (worker_state, registry):  # else claimed jobs are given back, more of them on a busy machine
        vars(module).update(START_DEADLINE=HOURS, REGISTRATION_INTERVAL=HOURS)
    jobs, ended = Jobs(url), 0

    @jobs.job("noop")
    async def noop(run: Run) -> int:
        nonlocal ended
        ended += 1
        if ended == count:
            worker.stop()
        return ended

    worker = jobs.worker(concurrency=100)
    worker.run()


def exchanged(url: str, count: int, *, size: int) -> None:
    """Claim and complete the no-op jobs that exist, `size` per request, as a worker does."""
    from milepost.core.transitions import plan_complete, plan_start
    from milepost.stores.ids import SYSTEM_IDS as ids
    from milepost.stores.protocol import Claim, Write
    from milepost.stores.redis import RedisStore
    from milepost.stores.sync_bridge import run_sync

    store = RedisStore(url)
    ended: list[Write] = []
    for number in range(1, count // size + 2):
        nonces = [(ids.new_operation_id(), ids.new_nonce()) for _ in range(min(size, count - (number - 1) * size))]
        starts = tuple(plan_start(one, nonce=nonce, lease=10**12, worker="w", release="1") for one, nonce in nonces)
        claim = Claim("w", {"noop": None}, starts, ids.new_operation_id(), None, number) if starts else None
        claimed = run_sync(store.apply(ended, claim)).claimed
        tokens = [(job.job_id, job.record["token"]) for job in claimed]
        ended = [Write(one, plan_complete(ids.new_operation_id(), token, "1", {}), False) for one, token in tokens]


PATHS: dict[str, Callable[[str, int], None]] = {
    "progress write": progress,
    "tracked block with ten reports": tracked,
    "submit": submitted,
    "submit in bulk, a job": in_bulk,
    "no-op job drained by a worker": drained,
    **{f"no-op job claimed and completed, {size} per request": partial(exchanged, size=size) for size in (10, 100)},
}
RARELY = ("--hz", "1", "--dynamic-hz", "no")
"""Redis settings without timed work, which would be counted and depend on the load."""
BEFORE = {name: "submit in bulk, a job" for name in PATHS if name.startswith("no-op job")}
"""What is run before a path."""
HOURS = 4 * 3600.0
NO_CLOCK = {"MILEPOST_LEASE": f"{2 * HOURS}", "MILEPOST_HEARTBEAT": f"{HOURS}", "MILEPOST_SWEEP": f"{HOURS}"}
"""Settings without timed work: callgrind makes a job fifty times slower, so that heartbeats would be counted in it."""


def survey(size: int) -> Table:
    """Count each path over `size` repetitions."""
    return Table("instructions", COLUMNS, [[name, *(f"{one:,}" for one in count(name, size))] for name in PATHS])


def count(name: str, size: int) -> tuple[int, int]:
    """Return the instructions of one repetition, in the caller and in Redis."""
    if shutil.which("valgrind") is None:
        sys.exit("benchmarks: valgrind is not installed; `make test-slow` installs it")
    few = size // 2  # caches are filled by then
    found = [(_of_caller(name, many), _of_redis(name, many)) for many in (few, few + size)]
    caller, server = (round((after - before) / size) for before, after in zip(*found, strict=True))
    return caller, server


def _of_caller(name: str, many: int) -> int:
    with tempfile.TemporaryDirectory() as folder, private_redis() as server:
        _run(name, server.port, many, *_callgrind(folder))
        return _read(folder)


def _of_redis(name: str, many: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        with private_redis(*RARELY, under=_callgrind(folder)) as server:
            _run(name, server.port, many)
        return _read(folder) - _timed(folder)


def _run(name: str, port: int, many: int, *under: str) -> None:
    """Run one path in its own process, after its preparation."""
    url = f"redis://127.0.0.1:{port}/0"
    if name in BEFORE:
        _run(BEFORE[name], port, many)
    subprocess.run(
        [*under, sys.executable, "-m", "benchmarks.surveys.instructions", name, url, str(many)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", **NO_CLOCK},
        check=True,
    )


def _callgrind(folder: str) -> tuple[str, ...]:
    out, log = Path(folder) / "out", Path(folder) / "log"
    return ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--log-file={log}")


def _read(folder: str) -> int:
    found = re.search(r"Collected : (\d+)", (Path(folder) / "log").read_text())
    assert found is not None, "callgrind tells what it has collected"
    return int(found[1])


def _timed(folder: str) -> int:
    """Return the instructions of Redis' own timed work, of which a slower run has more."""
    command = ("callgrind_annotate", "--inclusive=yes", "--threshold=100", str(Path(folder) / "out"))
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^ *([\d,]+) .*:serverCron ", listed, re.MULTILINE)
    return int(found[1].replace(",", "")) if found else 0


if __name__ == "__main__":
    from milepost.stores.redis import client

    # Under callgrind a long request would be sent again. Single writes keep the timeout of their connection: another one is
    # set for each request, which would be counted.
    if sys.argv[1] in BEFORE:
        client.REPLY_SECONDS = HOURS
    # One full collection more or less would be 30,000 instructions of each job in a bulk submit.
    gc.disable()
    PATHS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
