"""Run a queue peer inside its own environment: `python -m benchmarks.queue_peer PEER COMMAND URL [COUNT [SECONDS]]`.

=======  ==========================================================================================================
submit   no-op jobs one a call, COUNT or as many as SECONDS allow; prints how many and the seconds
bulk     the same by the peer's own bulk call, BULK at a time
pickup   COUNT jobs, each when the worker is idle; prints the seconds from before the call to the job's first line
work     one worker process, until it is killed
prepare  nothing but the connection, which creates a schema that is missing
=======  ==========================================================================================================

A peer is a module of `benchmarks.peers` with `connect(url)`, which gives a `Queue`, and `work(url)`, which does not return;
its no-op job calls `tick` and keeps the result. A program in another language takes the same commands, see `queue_peer.cjs`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from typing import Protocol

from benchmarks.environment import pin

BULK = 500
ROUND = 100
"""Counts are multiples of this number, so that the last tick of a drain belongs to the last job."""
IDLE = 0.015
"""Seconds before each pickup, long enough for the worker to become idle again."""


class Queue(Protocol):
    """The submitting side of a peer. `submit_many` is optional."""

    async def submit(self) -> object:
        """Submit one no-op job."""

    async def submit_many(self, count: int) -> object:
        """Submit `count` jobs in bulk."""


async def submit(queue: Queue, count: int, seconds: float, *, bulk: bool) -> dict[str, float]:
    """Submit until `count` or the time limit is reached."""
    done = 0
    begin = time.perf_counter()
    while done < count and (done % ROUND or not done or time.perf_counter() - begin < seconds):
        if bulk:
            size = min(BULK, count - done)
            await queue.submit_many(size)
            done += size
        else:
            await queue.submit()
            done += 1
    return {"jobs": done, "seconds": time.perf_counter() - begin}


async def pickup(queue: Queue, count: int) -> dict[str, list[float]]:
    """Submit one by one to an idle worker; the first three are not counted, because they wait for its start."""
    ticks = os.fdopen(os.open(os.environ["BENCH_TICKS"], os.O_RDWR), "rb", buffering=0)
    latencies = []
    for _ in range(count + 3):
        begin = time.monotonic_ns()
        await queue.submit()
        latencies.append((int(ticks.readline().split()[1]) - begin) / 1e9)
        await asyncio.sleep(IDLE)
    return {"latencies": latencies[3:]}


async def _command(peer: str, command: str, url: str, count: int, seconds: float) -> object:
    connected = importlib.import_module(f"benchmarks.peers.{peer}").connect(url)
    queue: Queue = await connected if asyncio.iscoroutine(connected) else connected
    if command == "prepare":
        return {}
    if command == "pickup":
        return await pickup(queue, count)
    return await submit(queue, count, seconds, bulk=command == "bulk")


def main() -> None:
    """Run one command and print its result as JSON."""
    peer, command, url, *numbers = sys.argv[1:]
    pin(1)
    if command == "work":
        importlib.import_module(f"benchmarks.peers.{peer}").work(url)
        return
    count, seconds = int(numbers[0]) if numbers else 0, float(numbers[1]) if len(numbers) > 1 else 3600.0
    print(json.dumps(asyncio.run(_command(peer, command, url, count, seconds))), flush=True)
    os._exit(0)  # some peers' clients wait for threads or connections of their own


if __name__ == "__main__":
    main()
