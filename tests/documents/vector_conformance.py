"""Conformance of document stores: approximate searches."""

from __future__ import annotations

import numpy as np
import pytest

from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.filters import DocumentFilter
from tests.documents.store_fixture import EMBEDDER, StoreTests, bring_in

EVERY = DocumentFilter(format="text")
"""A filter that all documents pass: such a search compares with all vectors."""


def nothing() -> None:
    """Give no sign of progress."""


class VectorConformance(StoreTests):
    @pytest.fixture
    def many(self, store: DocumentStore) -> DocumentStore:
        for number in range(6):
            bring_in(
                store, f"{number}.txt", "\n\n".join(f"lamp {number} {n} tower {n * 7 % 13} " * 8 for n in range(90))
            )
        return store

    def build(self, store: DocumentStore, least: int | None = 100) -> bool:
        generation = store.active_generation()
        assert generation is not None
        return store.build_approximate_index(generation, least, nothing)

    def test_approximate_hits_are_those_of_an_exact_search(self, many: DocumentStore) -> None:
        assert not self.build(many, least=10_000)
        assert self.build(many)
        assert not self.build(many), "it is up to date"
        shares = []
        for query in (f"lamp {n % 6} {n} tower {n * 7 % 13}" for n in range(0, 90, 6)):
            vector = EMBEDDER.embed([query])[0]
            least = many.search(10, vector=vector, only=EVERY)[-1].score - 1e-6  # different chunks may be equally near
            shares.append(sum(hit.score >= least for hit in many.search(10, vector=vector)) / 10)
        assert np.mean(shares) >= 0.95, shares

    def test_store_decides_from_where_on_searches_are_approximate(
        self, many: DocumentStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not self.build(many, least=None)
        monkeypatch.setattr(many._db, "approximate_from", 100)
        assert self.build(many, least=None)

    def test_approximate_search_sees_new_and_deleted_documents(self, many: DocumentStore, database: str) -> None:
        self.build(many)
        reader = open_store(database)
        vector = EMBEDDER.embed(["lamp 3 tower 7 paraffin"])[0]
        assert len(reader.search(3, vector=vector)) == 3
        new = bring_in(many, "new.txt", "lamp 3 tower 7 paraffin")
        assert reader.search(3, vector=vector)[0].uri == "new.txt"
        many.delete_document(new.document_id)
        assert "new.txt" not in {hit.uri for hit in reader.search(3, vector=vector)}
        for document in [one for one in many.documents() if one.uri != "0.txt"]:
            many.delete_document(document.document_id)
        assert {hit.uri for hit in reader.search(50, vector=vector)} == {"0.txt"}
        assert len(reader.search(50, vector=vector)) == 50
        reader.close()

    def test_approximate_index_is_extended(self, many: DocumentStore) -> None:
        self.build(many)
        bring_in(many, "more.txt", "\n\n".join(f"lamp {n} tower paraffin " * 10 for n in range(90)))
        self.build(many)
        vector = EMBEDDER.embed(["lamp 17 tower paraffin"])[0]
        assert {hit.uri for hit in many.search(10, vector=vector)} == {"more.txt"}
