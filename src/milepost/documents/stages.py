"""The stages of the document jobs: each timed for the result, and the two that ingestion and reindex have in common.

Owns how chunks are made, embedded and published under progress. What becomes of a document that was overtaken is
the business of the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from milepost.documents.errors import GenerationChanged, VersionVanished
from milepost.documents.pipeline import Index, chunk_document, drain, embed_versions, in_groups, publish
from milepost.documents.store.records import Version
from milepost.tracking.run import Run
from milepost.tracking.stages import LiveStage

_LOADING, _CHUNKING = 0.36, 2.1
_EMBEDDING: Final = {"minilm": 26.0, "wordllama": 0.33, "hashing": 0.1, "http": 5.0}
"""Milliseconds that a chunk takes, on two cores; what an endpoint takes is a guess."""


def shares(index: Index, of_all: float, *, loading: bool = False) -> tuple[float, float, float]:
    """The weights of loading, chunking and embedding, which together are `of_all` the work of a job."""
    kind = index.generation.settings["embedder"].partition(":")[0]
    spent = (_LOADING if loading else 0.0, _CHUNKING, _EMBEDDING[kind])
    load, chunk, embed = (of_all * each / sum(spent) for each in spent)
    return load, chunk, embed


def said_by(run: Run) -> Callable[[str], None]:
    """What a store or an endpoint tells of its waits, as the run's message; a cancel point."""

    def waiting(reason: str) -> None:
        run.progress(message=f"Waiting: {reason}" if reason else "")

    return waiting


class TimedStages:
    """Opens the stages of a run; `seconds` is what each has taken, by a short name for the result."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> dict[str, float]:
        """What the stages have taken, in seconds with three decimals."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}

    @contextmanager
    def stage(
        self, short: str, name: str, *, weight: float, unit: str, total: float | None = None
    ) -> Iterator[LiveStage]:
        """Open a stage as `Run.stage` does, and time it as `short`."""
        before = time.monotonic()
        try:
            with self.run.stage(name, weight=weight, total=total, unit=unit) as stage:
                yield stage
        finally:
            self._seconds[short] = time.monotonic() - before


class Indexing:
    """Makes documents of loaded texts in one index, and counts what that took.

    `overtaken` hears of each version that another job has replaced, or whose index was switched.
    """

    def __init__(self, stages: TimedStages, index: Index, overtaken: Callable[[Version], object]) -> None:
        self.index = index
        self.documents = self.chunks = self.computed = self.truncated = 0
        self._stages = stages
        self._run = stages.run
        self._overtaken = overtaken

    @property
    def counts(self) -> dict[str, int]:
        """What the result says of chunks: how many were embedded, known already, and longer than the model reads."""
        return {"embedded": self.computed, "from_cache": self.chunks - self.computed, "truncated": self.truncated}

    def chunk(self, versions: Iterable[Version], *, total: int, weight: float) -> list[Version]:
        """Cut texts into chunks; returns the versions with the number of theirs."""
        chunked: list[Version] = []
        with self._stages.stage("chunk", "Chunking", weight=weight, total=total, unit="document") as stage:
            for version in versions:
                try:
                    chunked.append(drain(chunk_document(self.index, version), lambda _: self._run.check()))
                except (GenerationChanged, VersionVanished):
                    self._overtaken(version)
                stage.advance(1)
        return chunked

    def embed(self, versions: list[Version], *, weight: float, published: Callable[[Version], object]) -> None:
        """Make the vectors that are missing and publish the documents, a group at a time."""
        total = sum(version.chunk_count for version in versions)
        with self._stages.stage("embed", "Embedding", weight=weight, total=total, unit="chunk") as stage:
            for group in in_groups(versions):
                for done, computed in embed_versions(self.index, group, tick=self._run.check):
                    self.computed += computed
                    stage.advance(done)
                for version in group:
                    try:
                        publish(self.index, version, tick=self._run.check)
                    except (GenerationChanged, VersionVanished):
                        self._overtaken(version)
                    else:
                        self.count(version)
                        published(version)
                self._run.checkpoint({"documents": self.documents, "chunks": self.chunks})

    def count(self, version: Version) -> None:
        """Count a document that was published."""
        self.documents += 1
        self.chunks += version.chunk_count
        self.truncated += version.truncated
