"""Conformance of document stores: entities, relations and communities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from milepost.documents import document_ids
from milepost.documents.store import DocumentStore
from milepost.documents.store.records import Community, Extraction, Relation
from tests.documents.store_fixture import (
    StoreTests,
    bring_in,
    mention,
)


class EntityConformance(StoreTests):
    # Entities

    def extract(self, store: DocumentStore, *found: Extraction, configuration: str = "rules") -> None:
        store.save_extractions(configuration, found)
        store.recount_entities()

    def chunk_ids(self, store: DocumentStore) -> dict[str, str]:
        return {chunk.text: chunk.chunk_id for chunk in store.unextracted("none", 1000)}

    def test_chunks_are_extracted_once_for_each_configuration(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "Ada")
        bring_in(store, "b.txt", "Bob")
        chunks = store.unextracted("rules", 1)
        assert len(chunks) == 1
        assert store.count_unextracted("rules") == 2
        self.extract(store, Extraction(chunks[0].chunk_id, (mention(chunks[0].text),)))
        assert store.count_unextracted("rules") == 1
        assert store.count_unextracted("other") == 2
        self.extract(store, Extraction(chunks[0].chunk_id), configuration="other")
        assert store.count_unextracted("rules") == 2
        assert store.entities() == []

    def test_entity_counts_are_recomputed(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "one")
        bring_in(store, "b.txt", "two")
        ids = self.chunk_ids(store)
        one = Extraction(ids["one"], (mention("Ada", count=2), mention("ADA", "ORG"), mention("Bob")))
        two = Extraction(ids["two"], (mention("ADA", "ORG", count=2),))
        for _ in range(2):
            self.extract(store, one, two)
            assert [(e.entity_id, e.name, e.label, e.mentions, e.chunks) for e in store.entities()] == [
                ("ada", "ADA", "ORG", 5, 2), ("bob", "Bob", "PERSON", 1, 1),
            ]  # fmt: skip
        self.extract(store, replace(one, mentions=(mention("Bob"),)))
        assert [(e.entity_id, e.chunks) for e in store.entities()] == [("ada", 1), ("bob", 1)]

    def test_deleting_a_document_deletes_its_entities(self, store: DocumentStore) -> None:
        version = bring_in(store, "a.txt", "one")
        bring_in(store, "b.txt", "two")
        ids = self.chunk_ids(store)
        both = (mention("Ada"), mention("Bob"))
        self.extract(
            store,
            Extraction(ids["one"], both, (Relation("ada", "bob", "meet"),)),
            Extraction(ids["two"], (mention("Ada"),)),
        )
        assert store.counts() | {"vectors": 0} == {
            "documents": 2, "chunks": 2, "vectors": 0, "entities": 2, "mentions": 3, "relations": 1, "communities": 0,
        }  # fmt: skip
        bring_in(store, "a.txt", "changed")
        assert [(e.entity_id, e.chunks) for e in store.entities()] == [("ada", 1)]
        assert store.edges() == []
        store.delete_document(document_ids.document_id("b.txt"))
        assert store.entities() == []
        assert version.document_id

    def test_extractions_of_a_removed_chunk_are_skipped(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "one")
        self.extract(store, Extraction("gone", (mention("Ada"),)))
        assert store.counts()["mentions"] == 0

    def test_entities_are_found_by_name(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "one")
        names = ("Ian", "Ian Murdock", "100%_sure", "Vivian")
        self.extract(store, Extraction(self.chunk_ids(store)["one"], tuple(mention(name) for name in names)))
        assert [e.name for e in store.entities(text="IAN")] == ["Ian", "Ian Murdock", "Vivian"]
        assert [e.name for e in store.entities(text="%_")] == ["100%_sure"]
        assert len(store.entities(limit=2)) == 2

    def test_neighbours_by_hops(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "one")
        bring_in(store, "b.txt", "two")
        ids = self.chunk_ids(store)
        people = tuple(mention(name) for name in ("A", "B", "C", "D"))
        relations = (Relation("a", "b", "meet"), Relation("b", "a", "know"), Relation("b", "c", "meet"))
        self.extract(
            store,
            Extraction(ids["one"], people, relations),
            Extraction(ids["two"], people, (Relation("a", "b", "meet"), Relation("a", "d", "meet"))),
        )
        near = store.neighbours("A")
        assert [(n.entity.entity_id, n.types, n.weight, n.hops) for n in near] == [
            ("b", ("know", "meet"), 2, 1), ("d", ("meet",), 1, 1),
        ]  # fmt: skip
        assert [(n.entity.entity_id, n.hops) for n in store.neighbours("a", hops=2)] == [("b", 1), ("d", 1), ("c", 2)]
        assert len(store.neighbours("a", hops=2, limit=1)) == 1
        assert store.edges() == [("a", "b", 2.0), ("a", "d", 1.0), ("b", "c", 1.0)]
        with pytest.raises(ValueError):
            store.neighbours("a", hops=9)

    def test_entities_are_embedded_once_per_model_and_name(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "one")
        ids = self.chunk_ids(store)
        self.extract(store, Extraction(ids["one"], (mention("Ada"), mention("Bob"))))
        assert store.unembedded_entities("m", 1) == [("ada", "Ada")]
        assert store.unembedded_entities("m", 10) == [("ada", "Ada"), ("bob", "Bob")]
        vector = np.ones(64, dtype=np.float32)
        store.set_entity_vectors("m", [("ada", "Ada", vector), ("bob", "Bob", vector)])
        assert store.unembedded_entities("m", 10) == []
        assert len(store.unembedded_entities("other", 10)) == 2
        self.extract(store, Extraction(ids["one"], (mention("ADA", count=5), mention("Bob"))))
        assert store.unembedded_entities("m", 10) == [("ada", "ADA")]

    # Communities

    def test_clustering_replaces_the_previous_one(self, store: DocumentStore) -> None:
        store.save_communities("entities", {"seed": 1}, [Community("0", 0, "old", 1, None, ("x",))])
        new = [Community("0", 0, "fine", 2, "1", ("a", "b")), Community("1", 1, "coarse", 3, None, ("a", "b", "c"))]
        store.save_communities("entities", {"seed": 2}, new)
        store.save_communities("chunks", {}, [Community("0", 0, "other", 1, None, ("x",))])
        assert store.communities() == new
        assert store.communities(level=1) == new[1:]
        assert store.communities("chunks")[0].label == "other"
