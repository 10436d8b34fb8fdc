"""Entities follow from mentions: this is where their names, labels and counts are computed, never incremented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from milepost.documents.store.port import Transaction

ACTIVE_CHUNKS: Final = """
    SELECT ac.chunk_id FROM documents ad JOIN chunks ac ON ac.version_id = ad.version_id
    WHERE ad.generation = (SELECT generation FROM active_generation)
"""
_AT_ONCE: Final = 500
_RECOUNT: Final = """
    WITH live AS (
        SELECT m.entity_id, m.chunk_id, m.name, m.label, m.occurrences FROM mentions m
        WHERE m.chunk_id IN ({active}) {only}
    ), totals AS (
        SELECT entity_id, sum(occurrences) AS mentions, count(DISTINCT chunk_id) AS chunks
        FROM live GROUP BY entity_id
    ), names AS (
        SELECT entity_id, name,
            row_number() OVER (PARTITION BY entity_id ORDER BY sum(occurrences) DESC, name) AS place
        FROM live GROUP BY entity_id, name
    ), labels AS (
        SELECT entity_id, label,
            row_number() OVER (PARTITION BY entity_id ORDER BY sum(occurrences) DESC, label) AS place
        FROM live GROUP BY entity_id, label
    )
    INSERT INTO entities (entity_id, name, label, mention_count, chunk_count)
    SELECT t.entity_id, n.name, l.label, t.mentions, t.chunks FROM totals t
    JOIN names n ON n.entity_id = t.entity_id AND n.place = 1
    JOIN labels l ON l.entity_id = t.entity_id AND l.place = 1
    WHERE t.mentions > 0
    ON CONFLICT (entity_id) DO UPDATE SET name = excluded.name, label = excluded.label,
        mention_count = excluded.mention_count, chunk_count = excluded.chunk_count
"""
_DROP: Final = """
    DELETE FROM entities WHERE NOT EXISTS (
        SELECT 1 FROM mentions m WHERE m.entity_id = entities.entity_id AND m.chunk_id IN ({active})) {only}
"""


def recount(tx: Transaction, entity_ids: Sequence[str] | None = None) -> None:
    """Bring all entities, or these, in line with their mentions in active chunks; drop those without any."""
    if entity_ids is None:
        tx.run(_DROP.format(active=ACTIVE_CHUNKS, only=""))
        tx.run(_RECOUNT.format(active=ACTIVE_CHUNKS, only=""))
        return
    for start in range(0, len(entity_ids), _AT_ONCE):
        some = entity_ids[start : start + _AT_ONCE]
        places = ", ".join("?" * len(some))
        tx.run(_DROP.format(active=ACTIVE_CHUNKS, only=f"AND entity_id IN ({places})"), some)
        tx.run(_RECOUNT.format(active=ACTIVE_CHUNKS, only=f"AND m.entity_id IN ({places})"), some)
