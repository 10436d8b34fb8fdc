"""Recorded runs, stored as compressed JSON lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "recordings"
SAMPLES = 160
"""Maximum number of samples of a run."""
BEGIN = 1_800_000_000.0
"""Unix time at which every replay starts."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stage of a recorded run; times in seconds from the run's start."""

    name: str
    parent: str | None
    weight: float | None
    total: float | None
    began: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class Recording:
    """One run as its heartbeat saw it: samples of (seconds, fraction, units done per stage), and its duration."""

    family: str
    seconds: float
    parts: tuple[Part, ...]
    samples: tuple[tuple[float, float, tuple[float, ...]], ...]

    def slower(self, factor: float) -> Recording:
        """Return the run with all times multiplied by a factor."""
        parts = tuple(
            Part(p.name, p.parent, p.weight, p.total, p.began * factor, None if p.ended is None else p.ended * factor)
            for p in self.parts
        )
        samples = tuple((at * factor, fraction, done) for at, fraction, done in self.samples)
        return Recording(self.family, self.seconds * factor, parts, samples)

    def report(self, at: float, sample: int) -> dict[str, str]:
        """Return the run's report at a moment, as record fields; `sample` is the newest one until then."""
        _, fraction, done = self.samples[sample]
        stages: list[dict[str, Any]] = []
        for number, part in enumerate(self.parts):
            if part.began > at:
                continue
            stage: dict[str, Any] = {"name": part.name, "started_at": moment(part.began)}
            stage["done"] = done[number] if number < len(done) else 0
            fields = {"parent": part.parent, "weight": part.weight, "total": part.total}
            stage |= {name: value for name, value in fields.items() if value is not None}
            if part.ended is not None and part.ended <= at:
                stage["ended_at"] = moment(part.ended)
                if part.total is not None:
                    stage["done"] = part.total
            stages.append(stage)
        report = {"progress": repr(fraction)}
        if stages:
            report["stages"] = json.dumps(stages)
        return report


def moment(seconds: float) -> str:
    """Return a time of a replay as ISO 8601."""
    return datetime.fromtimestamp(BEGIN + seconds, UTC).isoformat()


def families() -> list[str]:
    """Return the names of the recorded families."""
    return sorted(path.name.removesuffix(".jsonl.gz") for path in FOLDER.glob("*.jsonl.gz"))


def write(family: str, recordings: list[Recording]) -> None:
    """Write the recordings of a family, replacing earlier ones."""
    FOLDER.mkdir(exist_ok=True)
    lines = "".join(json.dumps(asdict(one), separators=(",", ":")) + "\n" for one in recordings)
    (FOLDER / f"{family}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 9, mtime=0))


def read(family: str) -> Iterator[Recording]:
    """Return the recordings of a family in their order."""
    for line in gzip.decompress((FOLDER / f"{family}.jsonl.gz").read_bytes()).decode().splitlines():
        data = json.loads(line)
        parts = tuple(Part(**part) for part in data["parts"])
        samples = tuple((at, fraction, tuple(done)) for at, fraction, done in data["samples"])
        yield Recording(data["family"], data["seconds"], parts, samples)
