"""Record runs: ``python -m benchmarks.eta.record steady bursty ...``; without a name, all families. `SEED` (the
environment) draws others; the constants of the method were set on other recordings than those that are kept.

Each run is a real one, under `track`, in this process. The work of `ingestion` is the built-in job on real documents; that
of the others is waiting, as for a service that answers when it does: then many runs can be recorded at once, and what
other programs do on the machine disturbs them little. `slow` takes about twenty minutes, `ingestion` ten, the others two.
"""

from __future__ import annotations

import math
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from benchmarks.eta.recording import SAMPLES, Part, Recording, write
from milepost import InMemoryJobManager
from milepost.core.job import Stage
from milepost.run.run import Run

RUNS = 32
SAMPLE_INTERVAL = 0.2
"""Seconds between two samples of a run, as between heartbeats."""


def steady(run: Run, chance: random.Random) -> None:
    """Make items that cost the same, within a tenth."""
    cost = 0.18 * math.exp(chance.gauss(0, 0.08))
    for _ in run.each(range(chance.randrange(150, 320))):
        time.sleep(cost * chance.uniform(0.9, 1.1))


def bursty(run: Run, chance: random.Random) -> None:
    """Make bursts of quick items, with waits between them that differ by a factor of ten and more."""
    left = 0
    for _ in run.each(range(chance.randrange(600, 1400))):
        if left == 0:
            left = chance.randrange(15, 90)
            time.sleep(min(12.0, math.exp(chance.gauss(0.5, 0.8))))
        left -= 1
        time.sleep(chance.uniform(0.002, 0.012))


def slowing(run: Run, chance: random.Random) -> None:
    """Compare each item with those before it, so that the last ones cost many times what the first ones do."""
    total = chance.randrange(140, 360)
    cost = 0.0022 * math.exp(chance.gauss(0, 0.2))
    for number in run.each(range(total)):
        time.sleep((0.01 + cost * number) * chance.uniform(0.7, 1.3))


def multistage(run: Run, chance: random.Random) -> None:
    """Five stages with guessed weights, one of them without a count."""
    pace = math.exp(chance.gauss(0, 0.2))
    pages = chance.randrange(40, 160)
    with run.stage("Reading", weight=2, total=pages, unit="page") as stage:
        for _ in range(pages):
            time.sleep(0.03 * pace * chance.uniform(0.5, 1.5))
            stage.advance()
    with run.stage("Cutting", weight=2, total=pages, unit="page") as stage:
        for _ in range(pages):
            time.sleep(0.004 * chance.uniform(0.5, 1.5))
            stage.advance()
    chunks = int(pages * chance.uniform(2.2, 3.4))
    with run.stage("Embedding", weight=3, total=chunks, unit="chunk") as stage:
        for _ in range(chunks):
            time.sleep(0.1 * pace * chance.uniform(0.6, 1.4))
            stage.advance()
    with run.stage("Building the index", weight=2):
        time.sleep(chunks * 0.03 * chance.uniform(0.8, 1.25))
    with run.stage("Checking", weight=1, total=20, unit="query") as stage:
        for _ in range(20):
            time.sleep(0.2 * chance.uniform(0.5, 1.5))
            stage.advance()


def slow(run: Run, chance: random.Random) -> None:
    """Healthy and slow: a silent stage of minutes, then items of seconds of which some take minutes."""
    with run.stage("Loading the model"):
        time.sleep(chance.uniform(30, 200))
    items = chance.randrange(60, 110)
    with run.stage("Asking the model", total=items, unit="question") as stage:
        for _ in range(items):
            time.sleep(min(240.0, math.exp(chance.gauss(1.2, 1.3))))
            stage.advance()


def ingestion(run: Run, chance: random.Random) -> None:
    """Run the built-in job on some of the documents that every Python installation has."""
    from milepost.documents.ingestion import ingestion as ingest

    with tempfile.TemporaryDirectory() as folder:
        files = chance.sample(documents(), chance.randrange(12, 60))
        ingest(run, [str(path) for path in files], database=f"sqlite:///{folder}/documents.db")


def documents() -> list[Path]:
    """Write the topics of Python's help, and texts of installed packages, as files."""
    import pydoc_data.topics

    folder = Path(tempfile.gettempdir()) / "milepost-eta-topics"
    folder.mkdir(exist_ok=True)
    for name, text in pydoc_data.topics.topics.items():
        path = folder / f"{name}.txt"
        if not path.exists():
            path.write_text(text, encoding="utf-8")
    packages = Path(sys.prefix)
    texts = (path for kind in ("*.md", "*.rst", "*.txt") for path in packages.rglob(kind))
    return sorted(folder.glob("*.txt")) + sorted(path for path in texts if 500 < path.stat().st_size < 60_000)


FAMILIES: dict[str, tuple[Callable[[Run, random.Random], None], int]] = {
    "steady": (steady, RUNS),
    "bursty": (bursty, RUNS),
    "slowing": (slowing, RUNS),
    "multistage": (multistage, RUNS),
    "slow": (slow, RUNS),
    "ingestion": (ingestion, 1),
}
"""A family's work, and how many of its runs may be recorded at once."""


def record(family: str, work: Callable[[Run, random.Random], None], seed: int) -> Recording:
    """Run the work once, sampled like a heartbeat."""
    chance = random.Random(f"{family} {os.environ.get('SEED', '')} {seed}")
    jobs = InMemoryJobManager()
    seen: list[tuple[float, float, tuple[Stage, ...]]] = []
    over = threading.Event()

    def look(run: Run, begun: float) -> None:
        while not over.wait(SAMPLE_INTERVAL):
            seen.append((time.monotonic() - begun, run.fraction, run.stages))

    with jobs.track(family) as run:
        wall, begun = time.time(), time.monotonic()
        watcher = threading.Thread(target=look, args=(run, begun))
        watcher.start()
        try:
            work(run, chance)
        finally:
            seconds = time.monotonic() - begun
            over.set()
            watcher.join()
        stages = run.stages
    return made(family, seconds, wall, stages, seen)


def made(
    family: str, seconds: float, wall: float, stages: tuple[Stage, ...], seen: list[tuple[float, float, tuple[Stage, ...]]]
) -> Recording:  # fmt: skip
    """Return the samples as a recording: only changed ones, up to a maximum number."""

    def since(text: str | None) -> float | None:
        return None if text is None else round(datetime.fromisoformat(text).timestamp() - wall, 3)

    def changes() -> Iterator[tuple[float, float, tuple[float, ...]]]:
        last: tuple[float, tuple[float, ...]] | None = None
        spacing, at_last = seconds / SAMPLES, -math.inf
        for at, fraction, now in seen:
            what = (round(fraction, 5), tuple(stage.done for stage in now))
            if what != last and at - at_last >= spacing:
                last, at_last = what, at
                yield round(at, 2), *what

    parts = tuple(
        Part(one.name, one.parent, one.weight, one.total, since(one.started_at) or 0.0, since(one.ended_at))
        for one in stages
    )
    return Recording(family, round(seconds, 3), parts, ((0.0, 0.0, ()), *changes()))


def main(names: list[str]) -> None:
    """Record families of runs."""
    for name in names or list(FAMILIES):
        work, together = FAMILIES[name]
        with ThreadPoolExecutor(together) as pool:
            done = list(pool.map(lambda seed, name=name, work=work: record(name, work, seed), range(RUNS)))
        write(name, done)
        print(f"{name}: {len(done)} runs of {min(d.seconds for d in done):.0f} to {max(d.seconds for d in done):.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
