"""How far an ingestion is, in bytes of its files: each counts as loaded, chunked and embedded by the share of time."""

from __future__ import annotations

from milepost.documents.pipeline import Index
from milepost.documents.stages import shares
from milepost.documents.store.records import Version
from milepost.run.stages import LiveStage


class IndexingProgress:
    """Advances a stage of bytes, and one that counts chunks, while files are indexed in groups."""

    def __init__(self, index: Index, stage: LiveStage, embedding: LiveStage) -> None:
        self._loading, _, self._embedding = shares(index, 1.0, loading=True)
        self._stage = stage
        self._chunks = embedding
        self._size = self._bytes_loaded = 0
        self._group_bytes = 0.0  # of files that wait for their vectors
        self._group_chunks = 0
        self._exact = 0.0

    def begin(self, size: int) -> None:
        """Begin a file of `size` bytes."""
        self._size, self._bytes_loaded = size, 0

    def loaded(self, count: int) -> None:
        """Count bytes of the file as read."""
        count = min(count, self._size - self._bytes_loaded)
        self._bytes_loaded += count
        self._advance(count * self._loading)

    def chunked(self, version: Version | None) -> None:
        """Count the file as chunked, or as done if there is no version to embed."""
        waiting = self._size * self._embedding if version is not None and version.chunk_count else 0.0
        if version is not None and version.chunk_count:
            self._group_bytes += waiting
            self._group_chunks += version.chunk_count
            self._chunks.total = (self._chunks.total or 0) + version.chunk_count
        self._advance(self._size - self._bytes_loaded * self._loading - waiting)

    def embedded(self, chunks: int) -> None:
        """Count chunks of the waiting files as embedded."""
        part = self._group_bytes * min(1.0, chunks / self._group_chunks) if self._group_chunks else 0.0
        self._group_bytes -= part
        self._group_chunks = max(0, self._group_chunks - chunks)
        self._chunks.advance(chunks)
        self._advance(part)

    def _advance(self, count: float) -> None:
        """Advance by whole bytes, and keep the rest."""
        self._exact += count
        self._stage.advance(max(0, round(self._exact) - int(self._stage.done)))
