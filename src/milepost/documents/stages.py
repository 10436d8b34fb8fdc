"""Timed stages of the document jobs, and the chunking and embedding that ingestion and reindex share.

The jobs keep no cursor and no checkpoint: each transaction writes the work with the mark that it is done, and the next
attempt asks the document store what is missing. A position in a list of files or chunks would be wrong or refused after a
change of the list, and could differ from what was committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

from milepost.core.errors import MissingExtraError
from milepost.documents.configuration import current
from milepost.documents.errors import BadDocumentError, GenerationChangedError, VersionVanishedError
from milepost.documents.pipeline import Index, chunk_document, drain, embed_versions, in_groups, publish
from milepost.documents.store import DocumentStore
from milepost.documents.store.records import Version
from milepost.run.run import Run
from milepost.run.stages import LiveStage

_LOADING, _CHUNKING = 0.36, 2.1
_EMBEDDING: Final = {"minilm": 26.0, "wordllama": 0.33, "hashing": 0.1, "http": 5.0}
"""Milliseconds per chunk on two cores; for an endpoint, and an embedder of a plugin, a guess."""


def shares(index: Index, of_all: float, *, loading: bool = False) -> tuple[float, float, float]:
    """Return the weights of loading, chunking and embedding, which add up to `of_all`."""
    kind = index.generation.settings["embedder"].partition(":")[0]
    spent = (_LOADING if loading else 0.0, _CHUNKING, _EMBEDDING.get(kind, _EMBEDDING["http"]))
    load, chunk, embed = (of_all * each / sum(spent) for each in spent)
    return load, chunk, embed


def report_waits(run: Run) -> Callable[[str], None]:
    """Return a callback that shows the waits of a store or an endpoint as the run's message. It is a cancellation
    point.
    """

    def on_wait(reason: str) -> None:
        run.progress(message=f"Waiting: {reason}" if reason else "")

    return on_wait


def start_run(store: DocumentStore, run: Run) -> None:
    """Connect a store to a run: show its waits, and fence its writes by the run.

    Raises MissingExtraError, which would otherwise be found out after documents were loaded.
    """
    if find_spec("numpy") is None:
        raise MissingExtraError("documents", "a document job")
    store.on_wait = report_waits(run)
    store.begin_run(run.job_id, run.fence)


def log_passed_over(run: Run, count: int, total: int, what: str) -> None:
    """Log how many of the items an earlier attempt or job has finished: the counts of the result are without them."""
    if count:
        run.log(f"{count:,} of {total:,} {what} and are passed over")


def build_approximate_index(run: Run, index: Index) -> None:
    """Make or extend the index that approximate searches use, if there are enough chunks."""

    def tick() -> None:
        run.progress(message="Building the approximate index")
        run.check()

    if index.store.build_approximate_index(index.generation, current().approximate_from, tick):
        run.log("the approximate index is up to date")


class TimedStages:
    """Opens the stages of a run, and times them under short names for the result."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds that each stage took, rounded to milliseconds."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}

    @contextmanager
    def stage(
        self, short: str, name: str, *, weight: float, unit: str, total: float | None = None
    ) -> Iterator[LiveStage]:
        """Open a stage as `Run.stage` does, and time it as `short`."""
        with self.timed(short), self.run.stage(name, weight=weight, total=total, unit=unit) as stage:
            yield stage

    @contextmanager
    def timed(self, short: str) -> Iterator[None]:
        """Add the time of a step to that of `short`."""
        before = time.monotonic()
        try:
            yield
        finally:
            self._seconds[short] = self._seconds.get(short, 0.0) + time.monotonic() - before


class Indexing:
    """Turns loaded texts into documents of one index, and counts the work.

    `on_superseded` is called with each version that another job replaced, or whose index was switched, and `on_refused`
    with each version that cannot be embedded.
    """

    def __init__(
        self,
        stages: TimedStages,
        index: Index,
        on_superseded: Callable[[Version], object],
        on_refused: Callable[[Version, BadDocumentError], object],
    ) -> None:
        self.index = index
        self.documents = self.chunks = self.computed = self.truncated = 0
        self._stages = stages
        self._run = stages.run
        self._on_superseded = on_superseded
        self._on_refused = on_refused

    @property
    def counts(self) -> dict[str, int]:
        """The chunk counts for the result: embedded, cached, and truncated by the model."""
        return {"embedded": self.computed, "from_cache": self.chunks - self.computed, "truncated": self.truncated}

    def chunk(self, versions: Iterable[Version], *, total: int, weight: float) -> list[Version]:
        """Split texts into chunks, and return the versions with their numbers of chunks."""
        chunked: list[Version] = []
        with self._stages.stage("chunk", "Chunking", weight=weight, total=total, unit="document") as stage:
            for version in versions:
                if (done := self.chunk_one(version)) is not None:
                    chunked.append(done)
                stage.advance(1)
        return chunked

    def chunk_one(self, version: Version, *, seconds: float | None = None) -> Version | None:
        """Split a text into chunks, and return its version with their number, or None if it has none.

        `seconds` limits the processor time.
        """
        try:
            return drain(chunk_document(self.index, version, seconds=seconds), lambda _: self._run.check())
        except (GenerationChangedError, VersionVanishedError):
            self._on_superseded(version)
        except BadDocumentError as bad:
            self._on_refused(version, bad)
        return None

    def embed(self, versions: list[Version], *, weight: float, published: Callable[[Version], object]) -> None:
        """Compute missing vectors and publish the documents, a group at a time."""
        total = sum(version.chunk_count for version in versions)
        with self._stages.stage("embed", "Embedding", weight=weight, total=total, unit="chunk") as stage:
            for group in in_groups(versions):
                self.embed_group(group, advance=stage.advance, published=published)
        log_passed_over(self._run, total - self.computed, total, "chunks have their vectors already")

    def embed_group(
        self, group: list[Version], *, advance: Callable[[int], object], published: Callable[[Version], object]
    ) -> None:
        """Compute the missing vectors of some documents and publish them. `advance` is called with numbers of chunks."""

        def count(step: tuple[int, int]) -> None:
            self.computed += step[1]
            advance(step[0])

        refused = drain(embed_versions(self.index, group, tick=self._run.check), count)
        for version in group:
            try:
                if version.version_id in refused:
                    raise refused[version.version_id]
                publish(self.index, version, tick=self._run.check)
            except (GenerationChangedError, VersionVanishedError):
                self._on_superseded(version)
            except BadDocumentError as bad:
                self._on_refused(version, bad)
            else:
                self.count(version)
                published(version)

    def count(self, version: Version) -> None:
        """Count a published document."""
        self.documents += 1
        self.chunks += version.chunk_count
        self.truncated += version.truncated


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 chunk``, ``1,050 chunks``, ``2 communities``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(parts: Iterable[str]) -> str:
    """Return the non-empty parts joined by commas."""
    return ", ".join(part for part in parts if part)


def ingested(*, documents: int, chunks: int, unchanged: int, failed: int, removed: int = 0, moved: int = 0) -> str:
    """Return ``Ingested 9 documents, 105 chunks (2 unchanged, 1 failed)``."""
    if not (documents or unchanged or failed or removed):
        return "Nothing to do: no files found"
    counts = (unchanged, "unchanged"), (failed, "failed"), (moved, "moved"), (removed, "removed")
    beside = listed(f"{count:,} {what}" for count, what in counts if count)
    if not documents and unchanged and not failed and not removed:
        return f"Nothing to do: {counted(unchanged, 'document')} unchanged"
    done = f"Ingested {counted(documents, 'document')}, {counted(chunks, 'chunk')}"
    return f"{done} ({beside})" if beside else done


def extracted(*, chunks: int, unchanged: int, failed: int, entities: int, relations: int) -> str:
    """Return ``Extracted 105 chunks: 378 entities, 625 relations``."""
    found = listed((counted(entities, "entity", "entities"), counted(relations, "relation")))
    if not chunks and not failed:
        return f"Nothing to do: {counted(unchanged, 'chunk')} extracted before, {found}"
    beside = f" ({failed:,} failed)" if failed else ""
    return f"Extracted {counted(chunks, 'chunk')}{beside}: {found}"


def reindexed(*, changed: bool, documents: int, chunks: int) -> str:
    """Return ``Reindexed 9 documents, 160 chunks``."""
    if not changed:
        return f"Nothing to do: the index of {counted(documents, 'document')} is made like this already"
    return f"Reindexed {counted(documents, 'document')}, {counted(chunks, 'chunk')}"


def dropped(generations: int) -> str:
    """Return ``Dropped 1 unfinished index``."""
    return f"Dropped {counted(generations, 'unfinished index', 'unfinished indexes')}"


def clustered(*, nodes: str, finest: int, levels: int) -> str:
    """Return ``Found 50 communities of 320 entities, in 3 levels``."""
    return f"Found {counted(finest, 'community', 'communities')} of {nodes}, in {counted(levels, 'level')}"
