"""Who plays in the demonstration: the types with their stages, the files, the people, and what goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from milepost.stores.protocol import Shelf
from milepost.tracking.run import Run
from milepost.worker.handlers import Handlers
from milepost.worker.published import publish

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
    await publish(shelf, [handlers[name] for name in handlers])
