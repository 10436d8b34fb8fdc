"""Conformance of document stores: documents, chunks, vectors and generations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from milepost.documents import document_ids
from milepost.documents.chunking import Chunk, Segment
from milepost.documents.errors import GenerationChangedError, VersionVanishedError
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Origins, Text
from tests.documents.run_in_threads import run_in_threads
from tests.documents.store_fixture import (
    EMBEDDER,
    SETTINGS,
    StoreTests,
    ask,
    begin,
    bring_in,
    embed,
    first,
)


class DocumentConformance(StoreTests):
    # Generations

    def test_empty_store_returns_empty_results(self, store: DocumentStore) -> None:
        assert store.active_generation() is None
        assert store.generations() == []
        assert list(store.documents()) == []
        assert store.document("x") is None
        assert set(store.counts().values()) == {0}
        assert store.nearest(EMBEDDER.embed(["x"])[0], 3) == []
        assert list(store.chunk_vectors(10)) == []
        assert (store.entities(), store.edges(), store.communities(), store.neighbours("x")) == ([], [], [], [])

    def test_first_generation_is_created_once(self, store: DocumentStore) -> None:
        generation = first(store)
        assert generation == first(store) == store.active_generation()
        bring_in(store, "a.txt", "text")
        assert store.ensure_generation("other", 3, {}) == generation
        assert store.generations() == [generation]

    def test_empty_generation_is_replaced_by_new_settings(self, store: DocumentStore) -> None:
        unpublished = begin(store, "a.txt", "text", first(store))
        other = store.ensure_generation("other", 3, {})
        assert (store.active_generation(), store.generations()) == (other, [other])
        with pytest.raises((GenerationChangedError, VersionVanishedError)):
            store.publish(unpublished.version_id)

    # Documents

    def test_text_removed_while_read_is_stored_whole(self, store: DocumentStore) -> None:
        text = Text("t", format="text")
        store.add_segments(text, 0, [Segment(0, "the beginning "), Segment(14, "the middle ")])
        store.prune(older_than=-1)
        with pytest.raises(VersionVanishedError):
            store.add_segments(text, 2, [Segment(25, "the end")])
        assert store.get_text("t") is None
        store.add_segments(text, 0, [Segment(0, "the beginning ")])
        store.add_segments(text, 1, [Segment(14, "the middle ")])
        assert len(list(store.segments("t"))) == 2

    def test_document_is_invisible_until_published(self, store: DocumentStore) -> None:
        version = begin(store, "a.txt", "The lighthouse of Bengtskar.", first(store))
        assert list(store.documents()) == []
        assert store.counts()["chunks"] == 0
        assert store.count_missing([version.version_id]) == 1
        assert not store.publish(version.version_id)
        assert embed(store, version) == 1
        assert store.count_missing([version.version_id]) == 0
        assert ask(store, "lighthouse") == []
        assert store.publish(version.version_id)
        assert ask(store, "lighthouse") == ["The lighthouse of Bengtskar."]
        stored = store.document(version.document_id)
        assert stored is not None
        assert (stored.uri, stored.title, stored.format, stored.characters) == ("a.txt", "a.txt", "text", 28)
        assert (stored.warnings, stored.chunk_count, stored.version_id) == (
            ("encoding_guessed",), 1, version.version_id,
        )  # fmt: skip
        assert list(store.documents()) == [stored]

    def test_publishing_again_changes_nothing(self, store: DocumentStore) -> None:
        version = bring_in(store, "a.txt", "words " * 300)
        before = store.counts()
        assert store.publish(version.version_id)
        assert bring_in(store, "a.txt", "words " * 300) == version
        assert store.counts() == before

    def test_changed_content_replaces_its_chunks(self, store: DocumentStore) -> None:
        old = bring_in(store, "a.txt", "An old sentence about paraffin.")
        bring_in(store, "b.txt", "Another document.")
        new = bring_in(store, "a.txt", "A new sentence about electricity.")
        assert old.version_id != new.version_id
        assert sorted(ask(store, "sentence")) == ["A new sentence about electricity.", "Another document."]
        assert store.counts()["documents"] == 2
        assert store.get_text(old.text_id) is None
        assert list(store.segments(old.text_id)) == []

    def test_vectors_are_shared_between_documents(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "The same words.")
        other = begin(store, "b.txt", "The same words.", first(store))
        assert store.missing_vectors([other.version_id], 10) == []
        key = document_ids.vector_key(EMBEDDER.model, "The same words.")
        store.put_vectors([(key, np.zeros(64, dtype=np.float32))])  # a known key keeps its vector
        assert store.publish(other.version_id)
        hits = store.nearest(EMBEDDER.embed(["The same words."])[0], 5)
        assert [round(hit.score, 5) for hit in hits] == [1.0, 1.0]

    def test_text_in_two_chunks_is_missing_once(self, store: DocumentStore) -> None:
        content = ("repeat " * 60 + "\n\n") * 3
        version = begin(store, "a.txt", content, first(store))
        missing = store.missing_vectors([version.version_id], 10)
        assert len(missing) == 1
        assert missing[0].chunks == version.chunk_count == store.count_missing([version.version_id])

    def test_missing_vectors_are_ordered_and_limited(self, store: DocumentStore) -> None:
        version = begin(store, "a.txt", " ".join(f"word{n}" for n in range(400)), first(store))
        missing = store.missing_vectors([version.version_id], 3)
        assert [one.text.split()[0] for one in missing] == sorted(
            (one.text.split()[0] for one in missing), key=lambda word: int(word[4:])
        )
        assert len(missing) == 3

    def test_removed_version_cannot_be_published(self, store: DocumentStore) -> None:
        with pytest.raises(VersionVanishedError):
            store.publish("nothing")
        with pytest.raises(VersionVanishedError):
            store.complete_chunks("nothing", chunk_count=0, truncated=0)
        version = begin(store, "a.txt", "text", first(store))
        store.abandon_version(version.version_id)
        with pytest.raises(VersionVanishedError):
            store.publish(version.version_id)
        with pytest.raises(VersionVanishedError):
            store.complete_text(Text(version.text_id, "text"))
        assert store.get_text(version.text_id) is None

    def test_published_version_is_not_abandoned(self, store: DocumentStore) -> None:
        version = bring_in(store, "a.txt", "text")
        store.abandon_version(version.version_id)
        assert store.document(version.document_id) is not None

    def test_inconsistent_chunk_count_is_refused(self, store: DocumentStore) -> None:
        version = begin(store, "a.txt", "text", first(store))
        with pytest.raises(VersionVanishedError):
            store.complete_chunks(version.version_id, chunk_count=7, truncated=0)

    def test_delete_removes_all_data_of_a_document(self, store: DocumentStore) -> None:
        version = bring_in(store, "a.txt", "Ada Lovelace")
        assert store.delete_document(version.document_id)
        assert not store.delete_document(version.document_id)
        assert ask(store, "Ada") == []
        assert store.counts()["chunks"] == 0

    def test_segments_keep_their_order_and_pages(self, store: DocumentStore) -> None:
        text = Text("t", "pdf")
        store.add_segments(text, 0, [Segment(0, "one", ((0, 1),)), Segment(3, "two")])
        store.add_segments(text, 2, [Segment(6, "three", ((6, 2), (8, 3)))])
        store.add_segments(text, 0, [Segment(0, "one", ((0, 1),))])
        assert [(s.start, s.text, s.pages) for s in store.segments("t")] == [
            (0, "one", ((0, 1),)), (3, "two", ()), (6, "three", ((6, 2), (8, 3))),
        ]  # fmt: skip
        found = store.get_text("t")
        assert found is not None
        assert not found.complete

    def test_prune_removes_unfinished_versions(self, store: DocumentStore) -> None:
        kept = bring_in(store, "a.txt", "kept")
        lost = begin(store, "b.txt", "lost", first(store))
        embed(store, lost)
        assert store.prune(older_than=3600) == 0
        assert store.prune(older_than=-1) == 2
        assert store.get_text(lost.text_id) is None
        assert store.document(kept.document_id) is not None
        assert store.counts()["vectors"] == 1

    def test_published_document_has_the_origins_of_its_run(self, store: DocumentStore) -> None:
        waits = begin(store, "a.txt", "text", first(store))
        store.origins = Origins({waits.document_id: "file:///folder"}, "acme", {"year": "1843"})
        assert store.record_origins(store.origins) == {waits.document_id}
        for _ in range(2):
            bring_in(store, "a.txt", "text")
            bring_in(store, "b.txt", "text of another run")
            assert {(one.uri, one.root, one.owner, *one.metadata) for one in store.documents()} == {
                ("a.txt", "file:///folder", "acme", "year"), ("b.txt", "", ""),
            }  # fmt: skip
            store.delete_document(waits.document_id)

    def test_origins_of_unpublished_documents_are_not_recorded(self, store: DocumentStore) -> None:
        waits = begin(store, "a.txt", "text", first(store))
        known = bring_in(store, "b.txt", "text")
        origins = Origins(
            {waits.document_id: "file:///folder", known.document_id: "file:///folder"}, "acme", {"year": "1"}
        )
        assert store.record_origins(origins) == {waits.document_id}
        assert store.record_origins(origins.of(known.document_id)) == set()
        bring_in(store, "a.txt", "text")
        assert {(one.uri, one.root, one.owner, *one.metadata) for one in store.documents()} == {
            ("a.txt", "", ""), ("b.txt", "file:///folder", "acme", "year"),
        }  # fmt: skip

    # Reading

    def test_nearest_equals_exhaustive_search(self, store: DocumentStore) -> None:
        texts = [f"document number {number} about subject {number % 7}" for number in range(60)]
        for number, text in enumerate(texts):
            bring_in(store, f"{number}.txt", text)
        query = EMBEDDER.embed(["number 12 subject 5"])[0]
        scores = sorted((float(score) for score in EMBEDDER.embed(texts) @ query), reverse=True)
        for _ in range(2):
            hits = store.nearest(query, 10)
            assert np.allclose([hit.score for hit in hits], scores[:10], atol=1e-5)
        assert hits[0].text == texts[12]
        assert hits[0].page == 1
        bring_in(store, "new.txt", "number 12 subject 5")
        assert store.nearest(query, 1)[0].uri == "new.txt"
        assert len(store.nearest(query, 1000)) == 61

    def test_chunk_vectors_are_read_in_blocks(self, store: DocumentStore) -> None:
        for number in range(7):
            bring_in(store, f"{number}.txt", f"document {number}")
        blocks = list(store.chunk_vectors(3))
        ids = [chunk_id for chunk_ids, _ in blocks for chunk_id in chunk_ids]
        assert [len(vectors) for _, vectors in blocks] == [3, 3, 1]
        assert ids == sorted(ids)
        assert len(set(ids)) == 7

    # Reindex

    def test_new_generation_is_built_beside_the_active_one(self, store: DocumentStore) -> None:
        old = bring_in(store, "a.txt", "Ada Lovelace wrote notes.")
        bring_in(store, "b.txt", "Charles Babbage built engines.")
        settings = {**SETTINGS, "chunk_tokens": 32}
        new = store.begin_generation(EMBEDDER.model, 64, settings)
        assert new == store.begin_generation(EMBEDDER.model, 64, settings)
        assert not new.active
        assert [document.uri for document in store.unindexed(new.number)] != []
        assert not store.activate(new.number)
        for document in store.unindexed(new.number):
            content = "".join(segment.text for segment in store.segments(document.text_id))
            bring_in(store, document.uri, content, new)
        assert store.counts()["documents"] == 2
        bring_in(store, "c.txt", "A latecomer.")
        assert not store.activate(new.number)
        bring_in(store, "c.txt", "A latecomer.", new)
        store.delete_document(old.document_id)
        assert store.activate(new.number)
        active = store.active_generation()
        assert active is not None
        assert (active.number, active.settings) == (new.number, settings)
        assert [generation.number for generation in store.generations()] == [new.number]
        assert sorted(ask(store, "x")) == ["A latecomer.", "Charles Babbage built engines."]
        with pytest.raises(VersionVanishedError):
            store.publish(old.version_id)
        with pytest.raises(GenerationChangedError):
            store.begin_version(replace(old, version_id="other"))

    def test_dropped_generation_number_is_not_reused(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "text")
        new = store.begin_generation("other", 64, SETTINGS)
        store.drop_generation(new.number)
        assert store.begin_generation("other", 64, SETTINGS).number > new.number
        active = store.active_generation()
        assert active is not None
        with pytest.raises(ValueError):
            store.drop_generation(active.number)
        with pytest.raises(GenerationChangedError):
            store.activate(99)

    # Together

    def test_concurrent_identical_writes_store_the_same_rows(self, store: DocumentStore, database: str) -> None:
        first(store)

        def work() -> None:
            own = open_store(database)
            try:
                for number in range(5):
                    bring_in(own, f"{number}.txt", f"document {number} " * 50)
            finally:
                own.close()

        run_in_threads(work, threads=3)
        assert store.counts()["documents"] == 5
        assert store.counts()["chunks"] == sum(document.chunk_count for document in store.documents())

    def test_chunks_of_any_text_round_trip(self, store: DocumentStore) -> None:
        version = begin(store, "a.txt", "text", first(store))
        chunk = Chunk("odd", 1, 4, 9, "'\"%?\\ \u2603 \U0001f600", 3, "A > B's", 7)
        store.add_chunks(version.version_id, [(chunk, b"\x00\xff" * 16)])
        store.complete_chunks(version.version_id, chunk_count=2, truncated=0)
        store.put_vectors([(b"\x00\xff" * 16, EMBEDDER.embed(["odd"])[0])])
        embed(store, version)
        assert store.publish(version.version_id)
        hit = store.nearest(EMBEDDER.embed(["odd"])[0], 1)[0]
        assert (hit.text, hit.heading, hit.page, hit.start, hit.stop) == (chunk.text, "A > B's", 7, 4, 9)
