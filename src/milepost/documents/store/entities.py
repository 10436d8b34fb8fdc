"""SQL for entities, their relations and their communities."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.document_ids import vector_key
from milepost.documents.errors import SupersededError
from milepost.documents.store.database import ACTIVE_CHUNKS, SqlStoreBase, Transaction, now, placeholders, recount
from milepost.documents.store.filters import refuse_nul
from milepost.documents.store.records import ChunkText, Community, Entity, Extraction, Neighbour

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ENTITY: Final = "entity_id, name, label, mention_count, chunk_count"
_BATCH_SIZE: Final = 400
_MAX_HOPS: Final = 4
_UNEXTRACTED: Final = """
    FROM documents d JOIN chunks c ON c.version_id = d.version_id
    LEFT JOIN extractions x ON x.chunk_id = c.chunk_id AND x.configuration = ?
    WHERE d.generation = (SELECT generation FROM active_generation) AND x.chunk_id IS NULL
"""

_UNEMBEDDED: Final = """
    FROM entities WHERE embedded_as IS NULL OR embedded_as <> CAST(? AS TEXT) || ' ' || name
"""


class EntityQueries(SqlStoreBase):
    """From mentions in chunks to a graph of entities."""

    def count_unextracted(self, configuration: str) -> int:
        """Return the number of active chunks that were not extracted with this configuration."""
        row = self._read(lambda tx: tx.one(f"SELECT count(*) {_UNEXTRACTED}", (configuration,)))
        return int(row[0]) if row else 0

    def unextracted(self, configuration: str, limit: int) -> list[ChunkText]:
        """Return up to `limit` active chunks that were not extracted with this configuration, in a fixed order."""
        rows = self._read(
            lambda tx: tx.all(
                f"SELECT c.chunk_id, d.document_id, c.text {_UNEXTRACTED} ORDER BY d.document_id, c.ordinal LIMIT ?",
                (configuration, limit),
            )
        )
        return [ChunkText(*row) for row in rows]

    def save_extractions(self, configuration: str, extractions: Sequence[Extraction]) -> None:
        """Replace the extractions of these chunks and mark them as done, in one step. Removed chunks are skipped."""

        def work(tx: Transaction) -> None:
            if not self._claim_scope(tx, "extraction", configuration):
                raise SupersededError("a run that began later has extracted these chunks with another configuration")
            for found in extractions:
                if tx.one("SELECT 1 FROM chunks WHERE chunk_id = ? LIMIT 1", (found.chunk_id,)) is None:
                    continue
                tx.run("DELETE FROM mentions WHERE chunk_id = ?", (found.chunk_id,))
                tx.run("DELETE FROM relations WHERE chunk_id = ?", (found.chunk_id,))
                tx.many(
                    """INSERT INTO mentions (entity_id, chunk_id, name, label, occurrences) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (entity_id, chunk_id, name, label)
                    DO UPDATE SET occurrences = excluded.occurrences""",
                    [(m.key, found.chunk_id, m.name, m.label, m.count) for m in found.mentions],
                )
                tx.many(
                    """INSERT INTO relations (source, target, type, chunk_id, occurrences) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (source, target, type, chunk_id)
                    DO UPDATE SET occurrences = excluded.occurrences""",
                    [(r.source, r.target, r.type, found.chunk_id, r.count) for r in found.relations],
                )
                tx.run(
                    """INSERT INTO extractions (chunk_id, configuration) VALUES (?, ?)
                    ON CONFLICT (chunk_id) DO UPDATE SET configuration = excluded.configuration""",
                    (found.chunk_id, configuration),
                )

        self._write(work)

    def recount_entities(self) -> None:
        """Recompute names, labels and counts of entities from mentions in active chunks. Delete those without any."""
        self._write(recount)

    def count_unembedded_entities(self, model: str) -> int:
        """Return the number of entities whose vector is missing, or of another model or name."""
        row = self._read(lambda tx: tx.one(f"SELECT count(*) {_UNEMBEDDED}", (model,)))
        return int(row[0]) if row else 0

    def unembedded_entities(self, model: str, limit: int) -> list[tuple[str, str]]:
        """Return up to `limit` (entity id, name) whose vector is missing, or of another model or name."""
        rows = self._read(
            lambda tx: tx.all(f"SELECT entity_id, name {_UNEMBEDDED} ORDER BY entity_id LIMIT ?", (model, limit))
        )
        return [(row[0], row[1]) for row in rows]

    def set_entity_vectors(self, model: str, vectors: Sequence[tuple[str, str, NDArray[np.float32]]]) -> None:
        """Store the vectors of (entity id, name, vector)."""
        rows = [(vector_key(model, name), self._db.to_vector(vector), time.time()) for _, name, vector in vectors]

        def work(tx: Transaction) -> None:
            tx.many("INSERT INTO vectors (vector_key, vector, made_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)
            tx.many(
                "UPDATE entities SET vector_key = ?, embedded_as = ? WHERE entity_id = ?",
                [(vector_key(model, name), f"{model} {name}", entity_id) for entity_id, name, _ in vectors],
            )

        self._write(work)

    def entities(self, *, text: str = "", limit: int = 50) -> list[Entity]:
        """Return entities by number of chunks: first those named `text`, then those whose name contains it."""
        refuse_nul("text", text)
        key = text.casefold().strip()
        pattern = "%" + key.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        rows = self._read(
            lambda tx: tx.all(
                f"""SELECT {_ENTITY} FROM entities WHERE entity_id LIKE ? ESCAPE '\\'
                ORDER BY CASE WHEN entity_id = ? THEN 0 ELSE 1 END, chunk_count DESC, mention_count DESC, entity_id
                LIMIT ?""",
                (pattern, key, limit),
            )
        )
        return [Entity(*row) for row in rows]

    def neighbours(self, entity: str, *, hops: int = 1, limit: int = 50) -> list[Neighbour]:
        """Return entities within `hops` (1 to 4) relations of an entity (its id or name), nearest and strongest first."""
        if not 1 <= hops <= _MAX_HOPS:
            raise ValueError(f"hops must be from 1 to {_MAX_HOPS}, not {hops}")
        refuse_nul("entity", entity)
        start = entity.casefold().strip()

        def work(tx: Transaction) -> list[Neighbour]:
            found: list[Neighbour] = []
            seen, frontier = {start}, [start]
            for hop in range(1, hops + 1):
                reached = _related_entities(tx, frontier, seen)
                entities = _by_ids(tx, list(reached))
                found += sorted(
                    (
                        Neighbour(entities[key], tuple(sorted(types)), weight, hop)
                        for key, (types, weight) in reached.items()
                        if key in entities
                    ),
                    key=lambda neighbour: (-neighbour.weight, neighbour.entity.entity_id),
                )
                seen |= set(reached)
                frontier = list(reached)
                if not frontier or len(found) >= limit:
                    break
            return found[:limit]

        return self._read(work)

    def edges(self) -> list[tuple[str, str, float]]:
        """Return the entity graph: (entity id, entity id, number of chunks), sorted, each pair once."""
        rows = self._read(
            lambda tx: tx.all(
                f"""SELECT one, two, count(DISTINCT chunk_id) FROM (
                    SELECT CASE WHEN source < target THEN source ELSE target END AS one,
                           CASE WHEN source < target THEN target ELSE source END AS two, chunk_id
                    FROM relations WHERE source <> target AND chunk_id IN ({ACTIVE_CHUNKS})) AS pairs
                GROUP BY one, two"""
            )
        )
        return sorted((row[0], row[1], float(row[2])) for row in rows)

    def save_communities(self, kind: str, settings: dict[str, Any], communities: Sequence[Community]) -> None:
        """Replace the clustering of a kind (`entities` or `chunks`) in one step."""

        def work(tx: Transaction) -> None:
            if not self._claim_scope(tx, f"clustering/{kind}"):
                raise SupersededError("a run that began later has already saved its clustering")
            tx.run("DELETE FROM communities WHERE kind = ?", (kind,))
            tx.run("DELETE FROM members WHERE kind = ?", (kind,))
            tx.run(
                """INSERT INTO clusterings (kind, settings, created_at) VALUES (?, ?, ?)
                ON CONFLICT (kind) DO UPDATE SET settings = excluded.settings, created_at = excluded.created_at""",
                (kind, json.dumps(settings, sort_keys=True), now()),
            )
            tx.many(
                """INSERT INTO communities (kind, community_id, level, parent, label, size)
                VALUES (?, ?, ?, ?, ?, ?)""",
                [(kind, c.community_id, c.level, c.parent, c.label, c.size) for c in communities],
            )
            tx.many(
                "INSERT INTO members (kind, community_id, position, member_id) VALUES (?, ?, ?, ?)",
                (
                    (kind, community.community_id, position, member)
                    for community in communities
                    for position, member in enumerate(community.members)
                ),
            )

        self._write(work)

    def communities(self, kind: str = "entities", *, level: int | None = None, limit: int = 50) -> list[Community]:
        """Return communities by size, with their members."""
        where, values = ("AND level = ?", [level]) if level is not None else ("", [])

        def work(tx: Transaction) -> list[Community]:
            rows = tx.all(
                f"""SELECT community_id, level, label, size, parent FROM communities WHERE kind = ? {where}
                ORDER BY level, size DESC, community_id LIMIT ?""",
                (kind, *values, limit),
            )
            return [Community(row[0], row[1], row[2], row[3], row[4], _members(tx, kind, row[0])) for row in rows]

        return self._read(work)


def _members(tx: Transaction, kind: str, community_id: str) -> tuple[str, ...]:
    rows = tx.all(
        "SELECT member_id FROM members WHERE kind = ? AND community_id = ? ORDER BY position", (kind, community_id)
    )
    return tuple(row[0] for row in rows)


def _related_entities(tx: Transaction, frontier: list[str], seen: set[str]) -> dict[str, tuple[set[str], int]]:
    """Return the entities one relation away from the frontier, with relation types and the highest number of chunks."""
    reached: dict[str, tuple[set[str], int]] = {}
    for start in range(0, len(frontier), _BATCH_SIZE):
        some = frontier[start : start + _BATCH_SIZE]
        rows = tx.all(
            f"""SELECT near, far, type, count(DISTINCT chunk_id) FROM (
                SELECT source AS near, target AS far, type, chunk_id FROM relations
                WHERE source IN ({placeholders(len(some))})
                UNION ALL SELECT target, source, type, chunk_id FROM relations
                WHERE target IN ({placeholders(len(some))})) AS both_ways
            GROUP BY near, far, type""",
            (*some, *some),
        )
        for _, far, type, weight in rows:
            if far not in seen:
                types, most = reached.get(far, (set(), 0))
                reached[far] = (types | {type}, max(most, int(weight)))
    return reached


def _by_ids(tx: Transaction, entity_ids: list[str]) -> dict[str, Entity]:
    found: dict[str, Entity] = {}
    for start in range(0, len(entity_ids), _BATCH_SIZE):
        some = entity_ids[start : start + _BATCH_SIZE]
        rows = tx.all(f"SELECT {_ENTITY} FROM entities WHERE entity_id IN ({placeholders(len(some))})", some)
        found.update((row[0], Entity(*row)) for row in rows)
    return found
