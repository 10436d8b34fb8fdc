"""Conformance of document stores: searches by words, and by meaning and words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from milepost.core.errors import InvalidInputError
from milepost.documents.retrieval import MODES, Mode, Searcher
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.filters import DocumentFilter
from milepost.documents.store.records import Origins
from milepost.documents.words import query_terms
from tests.documents.store_fixture import EMBEDDER, StoreTests, bring_in

NAMES = {
    "a.txt": "Run dpkg-divert --list to see the diversions of the system.",
    "b.txt": "The list of files to divert is long, says the manual of dpkg.",
    "c.txt": "Ein grüner Wurm, der Bücher liest; le répertoire des paquets.",
    "d.txt": "灯台は海岸に立っています。 The error code is E_4711.",
}
REPEATED = {
    "often.txt": "paraffin-lamp dpkg-divert " * 12,
    "long.txt": "The lamp beside the engine burns paraffin. " + " ".join(f"word{number}" for number in range(60)),
    "short.txt": "The lamp burns paraffin.",
}


def uris(store: DocumentStore, query: str, mode: Mode = "words") -> list[str]:
    return [hit.uri for hit in Searcher(store).search(query, mode=mode)]


class SearchConformance(StoreTests):
    @pytest.fixture
    def named(self, store: DocumentStore) -> DocumentStore:
        for name, content in NAMES.items():
            bring_in(store, name, content)
        return store

    def test_words_find_names_codes_and_other_scripts(self, named: DocumentStore) -> None:
        assert uris(named, "dpkg-divert") == ["a.txt", "b.txt"]
        assert uris(named, "E_4711")[0] == "d.txt"
        assert uris(named, "BUCHER REPERTOIRE") == ["c.txt"]
        assert uris(named, "海岸の灯台") == ["d.txt"]
        assert uris(named, "paraffin") == []
        assert uris(named, "--- ?!") == []
        assert uris(named, "' & | ! <-> ( \" : * NEAR") == []

    def test_word_scores_are_shares_of_the_query(self, named: DocumentStore) -> None:
        [whole] = Searcher(named).search("wurm", mode="words")
        [half] = Searcher(named).search("wurm paraffin", mode="words")
        assert 0 < half.score < whole.score <= 1

    def test_repeated_words_and_phrases_score_at_most_one(self, store: DocumentStore) -> None:
        for name, content in {**REPEATED, **NAMES}.items():
            bring_in(store, name, content)
        for query in ("dpkg-divert", "dpkg-divert --list", "paraffin", "paraffin-lamp wurm"):
            scores = [hit.score for hit in Searcher(store).search(query, mode="words")]
            assert 0 < scores[-1] <= scores[0] <= 1

    def test_hybrid_ranks_exact_names_first(self, named: DocumentStore) -> None:
        assert uris(named, "dpkg-divert --list", "hybrid")[0] == "a.txt"
        for query, weight in (("dpkg-divert --list", 0.1), ("show the diversions of the system", 0.35)):
            hits = Searcher(named).search(query, mode="hybrid")
            assert len(hits) == len(NAMES)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            meaning = {hit.uri: hit.score for hit in Searcher(named).search(query, mode="meaning")}
            words = {hit.uri: hit.score for hit in Searcher(named).search(query, mode="words")}
            for hit in hits:
                mean = weight * meaning[hit.uri] + (1 - weight) * words.get(hit.uri, 0)
                assert hit.score == pytest.approx(mean, abs=1e-5)

    def test_words_of_replaced_and_deleted_documents_are_not_found(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "An old sentence about paraffin.")
        new = bring_in(store, "a.txt", "A new sentence about electricity.")
        assert uris(store, "paraffin") == []
        assert uris(store, "electricity") == ["a.txt"]
        store.delete_document(new.document_id)
        assert uris(store, "electricity") == []
        assert uris(store, "electricity", "hybrid") == []

    def test_words_of_an_inactive_generation_are_not_found(self, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "paraffin")
        other = store.begin_generation(
            EMBEDDER.model, EMBEDDER.dimension, {"chunk_tokens": 32, "embedder": "hashing:64"}
        )
        bring_in(store, "a.txt", "paraffin", other)
        assert len(store.search(10, terms=query_terms("paraffin"))) == 1
        assert store.activate(other.number)
        assert uris(store, "paraffin") == ["a.txt"]

    def test_search_sees_changes_of_another_process(self, store: DocumentStore, database: str) -> None:
        reader = open_store(database)
        vector = EMBEDDER.embed(["document 7"])[0]
        for number in range(30):
            bring_in(store, f"{number}.txt", f"document {number}")
            assert len(reader.nearest(vector, 100)) == number + 1
        bring_in(store, "3.txt", "another text")
        document = next(document for document in store.documents() if document.uri == "5.txt")
        store.delete_document(document.document_id)
        found = {hit.uri: hit.text for hit in reader.nearest(vector, 100)}
        assert found == {hit.uri: hit.text for hit in open_store(database).nearest(vector, 100)}
        assert (len(found), found["3.txt"]) == (29, "another text")
        reader.close()

    # Filters

    @pytest.fixture
    def folders(self, store: DocumentStore) -> DocumentStore:
        for name in ("a", "ab", "b"):
            for number in range(4):
                bring_in(
                    store, f"{name}/{number}.txt", "\n\n".join(f"lamp {name} {number} {n} " * 12 for n in range(3))
                )
        return store

    @pytest.mark.parametrize("mode", MODES)
    def test_filters_are_exact(self, folders: DocumentStore, mode: Mode) -> None:
        search = Searcher(folders).search
        hits = search("lamp b 2", 1000, mode=mode, under="a/")
        assert {hit.uri for hit in hits} == {f"a/{number}.txt" for number in range(4)}
        assert len(hits) == sum(document.chunk_count for document in folders.list_documents(only=DocumentFilter("a")))
        assert {hit.uri for hit in search("lamp", mode=mode, under="ab/3.txt")} == {"ab/3.txt"}
        assert search("lamp", mode=mode, under="c") == []
        assert search("lamp", mode=mode, format="pdf") == []
        assert search("lamp", mode=mode, since="2999-01-01") == []
        assert len(search("lamp", 1000, mode=mode, format="text", since="2020-01-01")) == folders.counts()["chunks"]

    @pytest.mark.parametrize("mode", MODES)
    def test_owner_and_metadata_restrict_searches(self, folders: DocumentStore, mode: Mode) -> None:
        search = Searcher(folders).search
        ids = {document.uri: document.document_id for document in folders.documents()}
        some = {ids["a/1.txt"]: "", ids["b/1.txt"]: ""}
        folders.record_origins(Origins(some, owner="engines", metadata={"year": "1843"}))
        assert {hit.uri for hit in search("lamp", 1000, mode=mode, owner="engines")} == {"a/1.txt", "b/1.txt"}
        assert {hit.uri for hit in search("lamp", 1000, mode=mode, owner="engines", under="a")} == {"a/1.txt"}
        assert {hit.uri for hit in search("lamp", 1000, mode=mode, where={"year": [1842, 1843]})} == {
            "a/1.txt",
            "b/1.txt",
        }
        assert search("lamp", mode=mode, owner="") == search("lamp", mode=mode, where={"year": 1}) == []
        folders.delete_document(ids["a/1.txt"])
        bring_in(folders, "a/1.txt", "lamp")
        found = folders.find_document("a/1.txt")
        assert found is not None
        assert (found.owner, found.metadata) == ("", {}), "a new document of this name is not the deleted one"

    @pytest.mark.parametrize(
        ("field", "only"),
        [("under", {"under": "a\0"}), ("format", {"format": "\0"}), ("owner", {"owner": "\0"}),
         ("where", {"where": {"\0": "a"}}), ("where", {"where": {"a": ["b", "\0"]}})],
    )  # fmt: skip
    def test_nul_in_a_filter_is_refused(self, folders: DocumentStore, field: str, only: dict[str, Any]) -> None:
        """PostgreSQL raised an error of its own, which was a 500 over HTTP."""
        for ask in (folders.list_documents, partial(folders.search, 1, terms=[("lamp",)])):
            with pytest.raises(InvalidInputError, match="NUL") as refused:
                ask(only=DocumentFilter(**only))
            assert refused.value.field == field

    def test_nul_in_a_name_or_text_is_refused(self, folders: DocumentStore) -> None:
        asked: list[tuple[str, Callable[[], object]]] = [
            ("text", lambda: folders.list_documents("\0")), ("after", lambda: folders.list_documents(after="\0")),
            ("document", lambda: folders.document("\0")), ("text", lambda: folders.entities(text="\0a")),
            ("entity", lambda: folders.neighbours("\0a")),
        ]  # fmt: skip
        for field, ask in asked:
            with pytest.raises(InvalidInputError, match="NUL") as refused:
                ask()
            assert refused.value.field == field
        assert Searcher(folders).search("\0", mode="words") == []

    def test_one_hit_per_document_is_its_best(self, folders: DocumentStore) -> None:
        hits = Searcher(folders).search("lamp ab 1", 12, per_document=True)
        assert len({hit.document_id for hit in hits}) == len(hits) == 12
        best: dict[str, float] = {}
        for hit in Searcher(folders).search("lamp ab 1", 1000):
            best.setdefault(hit.document_id, hit.score)
        assert {hit.document_id: hit.score for hit in hits} == best

    def test_hits_have_the_chunks_around_them(self, folders: DocumentStore) -> None:
        for hit in Searcher(folders).search("lamp ab 1", 1000, context=1):
            place = int(hit.text.split()[3])
            assert [text.split()[3] for text in hit.before] == [str(place - 1)][: place > 0]
            assert [text.split()[3] for text in hit.after] == [str(place + 1)][: place < 2]
            assert {text.split()[1] for text in hit.before + hit.after} == {hit.uri.partition("/")[0]}
        [hit] = Searcher(folders).search("lamp ab 1", 1, under="ab/1.txt", context=5)
        assert len(hit.before) + len(hit.after) == 2

    def test_hits_below_a_score_are_left_out(self, folders: DocumentStore) -> None:
        scores = [hit.score for hit in Searcher(folders).search("lamp ab 1", 1000)]
        least = scores[5]
        assert [hit.score for hit in Searcher(folders).search("lamp ab 1", 1000, min_score=least)] == [
            score for score in scores if score >= least
        ]
        assert Searcher(folders).search("lamp", min_score=1) == []

    def test_documents_are_listed_by_uri_in_pages(self, folders: DocumentStore) -> None:
        every = sorted(document.uri for document in folders.documents())
        first = folders.list_documents(limit=5)
        rest = folders.list_documents(limit=100, after=first[-1].uri)
        assert [document.uri for document in (*first, *rest)] == every
        assert [document.uri for document in folders.list_documents("B/3")] == ["ab/3.txt", "b/3.txt"]
        assert folders.list_documents("%") == []
        bring_in(folders, "Übersicht.txt", "lamp")
        for part in ("Übersicht", "übersicht", "ÜBER"):
            assert [document.uri for document in folders.list_documents(part)] == ["Übersicht.txt"]
        found = folders.find_document("ab/3.txt")
        assert found is not None
        assert folders.find_document(found.document_id) == found == folders.document(found.document_id)
        assert folders.find_document("ab") is None
        assert folders.find_document("ab/3.txt", owner="engines") is None
        folders.record_origins(Origins({found.document_id: "file:///folders"}))
        assert [document.root for document in folders.list_documents("ab/")] == ["", "", "", "file:///folders"]

    def test_store_of_the_first_layout_is_migrated(self, named: DocumentStore, database: str) -> None:
        before = uris(named, "dpkg-divert --list", "hybrid")
        as_first_layout(named)
        named.close()
        opened = open_store(database)
        assert opened.counts()["vectors"] == len(NAMES)
        assert uris(opened, "dpkg-divert --list", "hybrid") == before
        assert uris(opened, "E_4711")[0] == "d.txt"
        bring_in(opened, "e.txt", "paraffin")
        assert uris(opened, "paraffin") == ["e.txt"]
        opened.close()


def as_first_layout(store: DocumentStore) -> None:
    """Make a store as the first layout had it, which had the same tables without those of the word index."""

    def work(tx: object) -> None:
        run = tx.run  # type: ignore[attr-defined]
        run("DROP TABLE words")
        run("DROP TABLE index_entries")
        run("DELETE FROM meta WHERE name = 'removals'")
        run("UPDATE meta SET value = '1' WHERE name = 'layout'")

    store._db.transact(work)
