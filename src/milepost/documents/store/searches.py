"""Searches by meaning, by words, and by both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.errors import GenerationChangedError
from milepost.documents.store.database import (
    Entries,
    Row,
    SqlStoreBase,
    Transaction,
    active_generation,
    placeholders,
)
from milepost.documents.store.filters import DocumentFilter
from milepost.documents.store.records import Hit
from milepost.documents.words import Term

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEANING_WEIGHT: Final = 0.35
NAME_MEANING_WEIGHT: Final = 0.1
"""The share of the cosine in the score of a hybrid search for a question and for a name; the rest is that of the words.

Chosen by measurement: more loses exact names, less loses questions in other words."""
_CANDIDATES: Final = 100
_BATCH: Final = 500
_HIT: Final = """
    SELECT e.number, c.chunk_id, v.document_id, v.uri, t.title, c.heading, c.page, c.start, c.stop, c.text
    FROM index_entries e JOIN chunks c ON c.version_id = e.version_id AND c.ordinal = e.ordinal
    JOIN versions v ON v.version_id = e.version_id JOIN texts t ON t.text_id = v.text_id
    WHERE e.number IN ({places})
"""
_AROUND: Final = """
    SELECT e.number, c.ordinal - e.ordinal, c.text FROM index_entries e
    JOIN chunks c ON c.version_id = e.version_id AND c.ordinal BETWEEN e.ordinal - {context} AND e.ordinal + {context}
    WHERE e.number IN ({places}) AND c.ordinal <> e.ordinal ORDER BY e.number, c.ordinal
"""


class SearchQueries(SqlStoreBase):
    """Find chunks of the active generation."""

    def nearest(self, vector: NDArray[np.float32], k: int, *, generation: int | None = None) -> list[Hit]:
        """Return the `k` chunks nearest to a unit vector, best first, scored by cosine.

        Raises `GenerationChangedError` if a given generation is not the active one.
        """
        return self.search(k, vector=vector, generation=generation)

    def has_words(self) -> bool:
        """Return whether searches by words are possible: SQLite needs FTS5."""
        return self._read(lambda tx: self._db.matching(tx, Entries(0), (), 1)) is not None

    def search(
        self,
        k: int,
        *,
        vector: NDArray[np.float32] | None = None,
        terms: Sequence[Term] | None = None,
        generation: int | None = None,
        only: DocumentFilter | None = None,
        meaning_weight: float = MEANING_WEIGHT,
        per_document: bool = False,
        min_score: float | None = None,
        context: int = 0,
    ) -> list[Hit]:
        """Return the `k` chunks that match best: a unit vector, terms, or both.

        The score is the cosine, or the share of the terms' weight that the chunk has, or with both their mean, with
        `meaning_weight` for the cosine.
        Without an index of words the terms are ignored if there is a vector. `only` restricts the documents,
        `per_document` returns the best chunk of each, and chunks with less than `min_score` are left out. Hits
        have the texts of `context` chunks before and after them. Raises `GenerationChangedError` if a given generation is
        not the active one.
        """

        def work(tx: Transaction) -> list[Hit]:
            active = active_generation(tx)
            if active is None:
                return []
            if generation not in (None, active.number):
                raise GenerationChangedError(f"generation {generation} is no longer active")
            among = (only or DocumentFilter()).entries(active.number)
            wanted = k
            while True:
                ranked = self._ranked(tx, among, active.dimension, wanted, vector, terms, meaning_weight)
                kept = [hit for hit in ranked if min_score is None or hit[0] >= min_score]
                if per_document:
                    kept = _best_of_each(tx, kept)
                if len(kept) >= k or len(ranked) < wanted or not per_document:
                    return _hits(tx, kept[:k], context)
                wanted *= 4

        return self._read(work)

    def _ranked(
        self,
        tx: Transaction,
        among: Entries,
        dimension: int,
        k: int,
        vector: NDArray[np.float32] | None,
        terms: Sequence[Term] | None,
        meaning_weight: float,
    ) -> list[tuple[float, int]]:
        """Return (score, entry number) of the best entries."""
        candidates = k if vector is None or terms is None else max(2 * k, _CANDIDATES)
        by_words = None if terms is None else self._db.matching(tx, among, terms, candidates)
        if vector is None:
            return by_words or []
        if not by_words:
            return self._db.nearest(tx, among, dimension, vector, k)
        cosines = {number: cosine for cosine, number in self._db.nearest(tx, among, dimension, vector, candidates)}
        words = {number: score for score, number in by_words}
        others = [number for number in words if number not in cosines]
        cosines |= self._db.similarities(tx, among, dimension, vector, others)
        scored = [
            (meaning_weight * cosine + (1 - meaning_weight) * words.get(number, 0.0), number)
            for number, cosine in cosines.items()
        ]
        return sorted(scored, key=lambda hit: (-hit[0], hit[1]))[:k]


def _best_of_each(tx: Transaction, ranked: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return the first entry of each document."""
    versions: dict[int, str] = {}
    for start in range(0, len(ranked), _BATCH):
        numbers = [number for _, number in ranked[start : start + _BATCH]]
        found = f"SELECT number, version_id FROM index_entries WHERE number IN ({placeholders(len(numbers))})"
        versions |= dict(tx.all(found, numbers))
    best: dict[str, tuple[float, int]] = {}
    for hit in ranked:
        best.setdefault(versions[hit[1]], hit)
    return list(best.values())


def _hits(tx: Transaction, ranked: Sequence[tuple[float, int]], context: int) -> list[Hit]:
    rows: dict[int, Row] = {}
    before: dict[int, list[str]] = defaultdict(list)
    after: dict[int, list[str]] = defaultdict(list)
    for start in range(0, len(ranked), _BATCH):
        numbers = [number for _, number in ranked[start : start + _BATCH]]
        rows |= {row[0]: row[1:] for row in tx.all(_HIT.format(places=placeholders(len(numbers))), numbers)}
        if context:
            around = _AROUND.format(context=int(context), places=placeholders(len(numbers)))
            for number, distance, text in tx.all(around, numbers):
                (before if distance < 0 else after)[number].append(text)
    found: list[list[Any]] = [
        [score, *rows[number], tuple(before[number]), tuple(after[number])] for score, number in ranked
    ]
    return [Hit(*fields) for fields in found]
