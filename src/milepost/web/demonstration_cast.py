"""Who plays in the demonstration: the types with their stages, the files, the people, and what goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

from milepost.core.encoding import moment, to_json
from milepost.stores.protocol import Shelf
from milepost.tracking.outlook import Outlook
from milepost.tracking.run import Run
from milepost.worker.handlers import Handlers
from milepost.worker.published import publish, type_of

SECOND = 1_000_000
FILES = (
    "transcript-88.txt", "crm-export.csv", "annual-report-2024.pdf", "handbook.md", "patent-US1123.pdf", "minutes.docx",
    "tickets-q3.csv", "research-notes.md", "contract-0417.pdf", "survey.html",
)  # fmt: skip
PEOPLE = ("ana", "ben", "chidi", "dana")
HOSTS = ("gpu-1", "gpu-2", "gpu-3")


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of jobs: its stages with their shares, how many seconds it takes, what it says while it works."""

    name: str
    stages: tuple[tuple[str, float], ...]
    seconds: tuple[float, float]
    unit: str
    params: dict[str, str | int | float]
    lines: tuple[tuple[str, str], ...]
    errors: tuple[tuple[str, str, str, str], ...]


KINDS = (
    Kind(
        "ingestion",
        (("Reading pages", 0.2), ("Cutting chunks", 0.1), ("Adding embeddings", 0.7)),
        (20, 140),
        "chunk",
        {"chunk_size": 512},
        (("info", "embedded a batch of 64"), ("debug", "page 12 has no text layer")),
        (("PdfError", "page 31 cannot be decrypted", "pipeline/pages.py:77", "page = document[number]"),),
    ),
    Kind(
        "extraction",
        (("Reading chunks", 0.15), ("Extracting entities", 0.45), ("Adding embeddings", 0.4)),
        (40, 220),
        "chunk",
        {"model": "small"},
        (("info", "412 entities so far"), ("warning", "the model was slow: 3.1 s")),
        (
            ("ValueError", "model returned malformed JSON", "pipeline/extract.py:41", "data = json.loads(reply)"),
            (
                "TimeoutError",
                "the model did not answer within 30 s",
                "pipeline/model.py:112",
                "reply = await ask(batch)",
            ),
        ),
    ),
    Kind(
        "reindex",
        (("Scanning index", 0.2), ("Rebuilding vectors", 0.65), ("Swapping alias", 0.15)),
        (30, 260),
        "chunk",
        {"index": "docs"},
        (("info", "flushed a segment"), ("info", "merged 3 segments")),
        (("ConnectionError", "the index does not answer", "pipeline/index.py:203", "client.put(segment)"),),
    ),
    Kind(
        "clustering",
        (("Computing neighbours", 0.5), ("Louvain pass 1 of 3", 0.2), ("Louvain pass 2 of 3", 0.2), ("Naming", 0.1)),
        (60, 300),
        "chunk",
        {"resolution": 1.0},
        (("info", "modularity 0.71"), ("debug", "moved 812 nodes")),
        (("MemoryError", "cannot allocate 3.1 GiB", "pipeline/graph.py:58", "matrix = neighbours @ neighbours.T"),),
    ),
)


class Actor:
    """A job of the play: how long it takes and how it ends."""

    def __init__(self, job_id: str, kind: Kind, title: str, seconds: float, fate: str, chance: random.Random) -> None:
        self.job_id, self.kind, self.title, self.seconds, self.fate = job_id, kind, title, seconds, fate
        self.worker = HOSTS[0]
        self.total = chance.randrange(180, 900)
        self.turn = chance.uniform(0.25, 0.85)
        self.began = 0
        self.offset = 0.0
        self.token: str | None = None
        self.told_stage = -1
        self.stands_still = self.is_flagged = False
        self.job_type, self.planned = kind.name, False
        self.outlook: Outlook | None = None

    @property
    def resumed(self) -> bool:
        """Whether it goes on from a checkpoint."""
        return self.offset > 0

    def fraction(self, now: int) -> float:
        """How far the job is, were it to go well."""
        return min(1.0, self.offset + (now - self.began) / (self.seconds * SECOND))

    def stage(self, fraction: float) -> tuple[int, float]:
        """The stage at a fraction, and how far that stage is."""
        below = 0.0
        for number, (_, weight) in enumerate(self.kind.stages):
            if fraction < below + weight or number == len(self.kind.stages) - 1:
                return number, min(1.0, (fraction - below) / weight)
            below += weight
        return 0, 0.0

    def report(self, now: int, fraction: float) -> dict[str, str]:
        """What a run would say of itself."""
        number, inner = self.stage(fraction)
        stages: list[dict[str, Any]] = []
        begins = self.began - int(self.offset * self.seconds * SECOND)
        for at, (name, weight) in enumerate(self.kind.stages[: number + 1]):
            ends = begins + int(weight * self.seconds * SECOND)
            done = self.total if at < number else int(self.total * inner)
            stages.append({
                "name": name, "weight": weight, "done": float(done), "total": float(self.total), "unit": self.kind.unit,
                "started_at": text_of(max(begins, self.began)), "ended_at": text_of(ends) if at < number else None,
            })  # fmt: skip
            begins = ends
        name = self.kind.stages[number][0]
        said = {
            "progress": repr(round(fraction, 6)),
            "message": f"{name} · {int(self.total * inner)} of {self.total} {self.kind.unit}s",
            "stages": to_json(stages, "stages"),
        }
        return said | (self.outlook.look(said, now / SECOND) if self.outlook is not None else {})


def text_of(micros: int) -> str:
    """A moment as a record's text."""
    return moment(micros).isoformat()


_TRACE = """Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/milepost/worker/execution.py", line 212, in run
    result = await handler.call(run)
  File "/usr/lib/python3.11/site-packages/milepost/worker/handlers.py", line 88, in call
    return await self.function(run, **parameters)
  File "/srv/app/{file}", line {line}, in {name}
    {code}
{kind}: {message}
"""


def traceback_of(kind: Kind, chance: random.Random) -> tuple[str, str, str]:
    """An exception of a type of jobs: its class, its message, its traceback."""
    name, message, place, code = chance.choice(kind.errors)
    file, _, line = place.partition(":")
    return name, message, _TRACE.format(file=file, line=line, name=kind.name, code=code, kind=name, message=message)


handlers = Handlers()


@handlers.job("ingestion", max_attempts=3)
async def ingestion(run: Run, path: str, chunk_size: int = 512, tables: bool = False) -> None:
    """Read a document, cut it into chunks and embed them.

    `path` is a file that the workers can read; `tables` keeps the cells of tables together.
    """


@handlers.job("extraction", max_attempts=3)
async def extraction(run: Run, path: str, model: Literal["small", "large"] = "small") -> None:
    """Extract entities and relations from the chunks of a document."""


@handlers.job("reindex", concurrency=8)
async def reindex(run: Run, index: str = "docs", path: str | None = None) -> None:
    """Rebuild the vectors of an index beside the old ones, then swap them."""


@handlers.job("clustering")
async def clustering(
    run: Run, resolution: float = 1.0, path: str | None = None, names: list[str] | None = None
) -> None:
    """Find communities of documents by Louvain's method."""


async def publish_kinds(shelf: Shelf) -> None:
    """Let the dashboard know the types, with the schemas of their parameters."""
    await publish(shelf, map(type_of, handlers.values()))
