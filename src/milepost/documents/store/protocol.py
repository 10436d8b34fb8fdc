"""What every document store can do.

The contract: each verb is one atomic step; a document is visible to readers whole or
not at all; every write can be repeated and ends in the same rows; a store that is
locked, full or away is tried again for a while, and `waiting` is told so; when that
takes too long, `StoreBusy` is raised. Safe to use from several threads and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from milepost.documents.chunks import Chunk, Segment
from milepost.documents.store.records import (
    ChunkText,
    Community,
    Entity,
    Extraction,
    Generation,
    Hit,
    MissingVector,
    Neighbour,
    StoredDocument,
    Text,
    Version,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DocumentStore(Protocol):
    """Documents, chunks, vectors, generations; entities, relations, communities."""

    waiting: Callable[[str], object] | None
    """Called with the reason about ten times a second while the store cannot be used; may raise to give up."""

    def close(self) -> None:
        """Free connections; the store may be used again."""

    # Generations

    def active_generation(self) -> Generation | None:
        """The generation that searches read, or None while there is none."""

    def generations(self) -> list[Generation]:
        """All generations, oldest first."""

    def ensure_generation(self, model: str, dimension: int, settings: dict[str, Any]) -> Generation:
        """Return the active generation; one with these settings takes its place while it has no documents."""

    def begin_generation(self, model: str, dimension: int, settings: dict[str, Any]) -> Generation:
        """Return the inactive generation with this model and these settings; make it when there is none."""

    def unindexed(self, generation: int) -> list[StoredDocument]:
        """The active documents whose present text is not published in another generation yet."""

    def activate(self, generation: int) -> bool:
        """Switch searches over and drop all other generations; False, and nothing, while documents are missing in it.

        Raises `GenerationChanged` when it is gone.
        """

    def drop_generation(self, generation: int) -> None:
        """Remove an inactive generation. Raises `ValueError` for the active one."""

    # A document, from its text to its publication

    def get_text(self, text_id: str) -> Text | None:
        """A text, complete or not."""

    def add_segments(self, text: Text, position: int, segments: Sequence[Segment]) -> None:
        """Add segments of a text, the first at `position` (0, 1, ...).

        Raises `VersionVanished` when another job has removed those before it.
        """

    def complete_text(self, text: Text) -> None:
        """Say that all segments are there, with what the loader reported."""

    def segments(self, text_id: str) -> Iterator[Segment]:
        """The segments of a text in order, read one at a time."""

    def begin_version(self, version: Version) -> Version:
        """Return the version of this id as it is, made when it is not there."""

    def abandon_version(self, version_id: str) -> None:
        """Remove a version that will not be published; one that is published stays."""

    def add_chunks(self, version_id: str, chunks: Sequence[tuple[Chunk, bytes]]) -> None:
        """Add chunks, each with the key of its vector."""

    def complete_chunks(self, version_id: str, *, chunk_count: int, truncated: int) -> None:
        """Say that all chunks are there. Raises `VersionVanished` when another job has removed them."""

    def count_missing(self, version_ids: Sequence[str]) -> int:
        """The number of chunks of these versions that have no vector yet."""

    def missing_vectors(self, version_ids: Sequence[str], limit: int) -> list[MissingVector]:
        """Up to `limit` texts of these versions that have no vector yet, each key once."""

    def put_vectors(self, vectors: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        """Keep vectors under their keys; a key that is known keeps the vector it has."""

    def publish(self, version_id: str) -> bool:
        """Make a version the document, in the place of the one before; False when a vector is missing.

        Raises `VersionVanished` when it is gone, `GenerationChanged` when its generation is.
        """

    def document(self, document_id: str, *, generation: int | None = None) -> StoredDocument | None:
        """A published document, of the active generation unless another is named."""

    def documents(self, *, generation: int | None = None) -> Iterator[StoredDocument]:
        """All published documents in the order of their ids."""

    def delete_document(self, document_id: str) -> bool:
        """Remove a document from every generation; False when it was in none."""

    def counts(self) -> dict[str, int]:
        """Rows that readers can see: documents, chunks, vectors, entities, mentions, relations, communities."""

    def prune(self, *, older_than: float) -> int:
        """Remove what was begun more than `older_than` seconds ago and never published; return the rows removed."""

    # Reading

    def nearest(self, vector: NDArray[np.float32], k: int, *, generation: int | None = None) -> list[Hit]:
        """The `k` chunks of the active generation nearest to a unit vector, best first.

        Raises `GenerationChanged` when a generation is named that is not the active one.
        """

    def chunk_texts(self, chunk_ids: Sequence[str]) -> list[ChunkText]:
        """The texts of chunks of the active generation, in the order of their ids."""

    def chunk_vectors(self, block: int) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """(chunk ids, vectors) of the active generation in blocks of at most `block` rows, in the order of the ids."""

    # Entities

    def count_unextracted(self, configuration: str) -> int:
        """The number of active chunks that were not extracted with this configuration."""

    def unextracted(self, configuration: str, limit: int) -> list[ChunkText]:
        """Up to `limit` active chunks that were not extracted with this configuration."""

    def save_extractions(self, configuration: str, extractions: Sequence[Extraction]) -> None:
        """Replace what is known of these chunks and mark them as done, in one step."""

    def recount_entities(self) -> None:
        """Bring the entities in line with the mentions in active chunks: names, labels, counts; drop those without."""

    def count_unembedded_entities(self, model: str) -> int:
        """The number of entities whose vector is missing or of another model or name."""

    def unembedded_entities(self, model: str, limit: int) -> list[tuple[str, str]]:
        """Up to `limit` (entity id, name) whose vector is missing or of another model or name."""

    def set_entity_vectors(self, model: str, vectors: Sequence[tuple[str, str, NDArray[np.float32]]]) -> None:
        """Keep the vectors of (entity id, name, vector)."""

    def entities(self, *, text: str = "", limit: int = 50) -> list[Entity]:
        """Entities by number of chunks, those first whose name is `text`, then those that contain it."""

    def neighbours(self, entity: str, *, hops: int = 1, limit: int = 50) -> list[Neighbour]:
        """Entities within `hops` relations of an entity (its id or name), nearest and heaviest first."""

    def edges(self) -> list[tuple[str, str, float]]:
        """The entity graph: (entity id, entity id, number of chunks), sorted, each pair once."""

    # Communities

    def save_communities(self, kind: str, settings: dict[str, Any], communities: Sequence[Community]) -> None:
        """Replace the clustering of a kind (`entities` or `chunks`) in one step."""

    def communities(self, kind: str = "entities", *, level: int | None = None, limit: int = 50) -> list[Community]:
        """Communities by size, with their members."""
