"""The extraction job: names, relations, resume, failing chunks, and each extractor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from milepost.core.errors import JobCancelled
from milepost.documents.errors import EmptyStoreError
from milepost.documents.extract import clean, get_extractor
from milepost.documents.extraction import NothingExtractedError, extraction
from milepost.documents.http_endpoint import EndpointError
from milepost.documents.ingestion import ingestion
from milepost.documents.retrieval import entities, neighbours
from milepost.documents.store import open_store
from milepost.documents.store.records import ChunkText, Extraction
from tests.documents.embedding_server import serving
from tests.documents.run_in_threads import run_in_threads
from tests.documents.watched_run import WatchedRun

TEXT = """Ian Murdock founded the Debian Project at Purdue University. Bruce Perens succeeded Ian Murdock in 1996.

The Debian Project's first leader was Ian Murdock. Bruce Perens later worked for Pixar."""


@pytest.fixture
def database(tmp_path: Path) -> str:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "a.txt").write_text(TEXT)
    for number in range(150):
        (tmp_path / "library" / f"{number:03}.txt").write_text(f"Person Number{number} met Grace Hopper in Arlington.")
    database = str(tmp_path / "documents.db")
    ingestion(WatchedRun(), [str(tmp_path / "library")], database=database, model="hashing:64")
    return database


def extract(database: str, watch: Any = None, **options: Any) -> tuple[dict[str, Any], WatchedRun]:
    run = WatchedRun(watch)
    return extraction(run, database=database, **{"extractor": "rules", **options}), run


def rows(database: str) -> tuple[Any, ...]:
    store = open_store(database)
    try:
        return store.entities(limit=1000), store.edges(), store.counts()
    finally:
        store.close()


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("the Debian Project", "Debian Project"),
        ("Debian's", "Debian"),
        ("James\u2019", "James"),
        (" \u201cIan\n Murdock\u201d, ", "Ian Murdock"),
        ("1993", None),
        ("X", None),
        ("A long name " * 10, None),
        ("one\n\ntwo", None),
        ("amd64", "amd64"),
    ],
)
def test_names_are_cleaned(name: str, cleaned: str | None) -> None:
    assert clean(name) == cleaned


def test_rules_find_capitalised_phrases(database: str) -> None:
    result, run = extract(database)
    assert (result["chunks"], result["extracted"], result["unchanged"], result["failed_chunks"]) == (151, 151, 0, [])
    top = entities(database=database)[:2]
    assert [(e.name, e.label, e.chunks) for e in top] == [("Arlington", "NAME", 150), ("Grace Hopper", "NAME", 150)]
    found = {n.entity.name: n.types for n in neighbours("ian murdock", database=database)}
    assert found == dict.fromkeys(("Bruce Perens", "Debian Project", "Purdue University"), ("co_occurs",))
    assert "Pixar" in {n.entity.name for n in neighbours("Ian Murdock", hops=2, database=database)}
    counts = rows(database)[2]
    assert {name: result[name] for name in ("entities", "mentions", "relations")} == {
        name: counts[name] for name in ("entities", "mentions", "relations")
    }
    assert result["entities_embedded"] == result["entities"]
    assert all(stage.total is None or stage.done == stage.total for stage in run.stages)
    assert run.progress_seen == sorted(run.progress_seen)


def test_running_again_changes_nothing(database: str) -> None:
    extract(database)
    before = rows(database)
    result, _ = extract(database)
    assert (result["extracted"], result["unchanged"], result["entities_embedded"]) == (0, 151, 0)
    assert rows(database) == before


def test_cancelled_job_keeps_whole_batches_and_resumes(database: str) -> None:
    def watch(run: WatchedRun) -> None:
        if run.stages and run.stages[-1].done >= 100:
            run.cancel()

    with pytest.raises(JobCancelled):
        extract(database, watch)
    store = open_store(database)
    assert store.count_unextracted("rules-2") == 151 - 64
    store.close()
    result, run = extract(database)
    assert result["extracted"] == 151 - 64
    assert "64 of 151 chunks are extracted already and are passed over" in run.logged
    before = rows(database)
    assert extract(database, embed=False)[0]["extracted"] == 0
    assert rows(database) == before


def test_concurrent_jobs_store_the_same_rows(database: str) -> None:
    run_in_threads(lambda: extract(database))
    together = rows(database)
    extract(database)
    assert rows(database) == together


def test_get_extractor_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="rules"):
        get_extractor("magic")
    with pytest.raises(ValueError, match="endpoint"):
        get_extractor("llm")
    monkeypatch.setattr("milepost.documents.extract.spacy_models.find_model", lambda: None)
    assert get_extractor("auto").warnings == ("no_spacy_model",)
    with pytest.raises(ImportError, match="milepost"):
        get_extractor("spacy")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_spacy_finds_typed_relations() -> None:
    extractor = get_extractor("spacy")
    text = "Bill Gates founded Microsoft in 1993. Bruce Perens succeeded Ian Murdock and worked for Pixar."
    (found,) = extractor.extract([ChunkText("c", "d", text)])
    assert isinstance(found, Extraction)
    labels = {(m.name, m.label) for m in found.mentions}
    assert ("Ian Murdock", "PERSON") in labels
    assert not any(m.name == "1993" for m in found.mentions)
    triples = {(r.source, r.type, r.target) for r in found.relations}
    assert ("bill gates", "found", "microsoft") in triples
    assert ("bruce perens", "succeed", "ian murdock") in triples
    assert "3.8" in extractor.configuration
    extractor.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_missing_spacy_model_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILEPOST_SPACY_MODEL", "xx_no_such_model")
    with pytest.raises(ValueError, match="xx_no_such_model"):
        _ = get_extractor("spacy").configuration


def answer(body: dict[str, Any]) -> str:
    text = body["messages"][1]["content"]
    found = {"entities": [{"name": "the Grace Hopper", "type": "person"}, {"name": text.split(" met")[0]}]}
    found["relations"] = [{"source": text.split(" met")[0], "type": "Meet", "target": "Grace Hopper"}]  # type: ignore[list-item]
    return f"Here it is:\n```json\n{json.dumps(found)}\n```\nAnything else?"


def test_llm_extractor_retries_invalid_output(database: str) -> None:
    broken = iter(range(1000))

    def chat(body: dict[str, Any]) -> str:
        if "Debian" in body["messages"][1]["content"]:
            return "I would rather not."
        return '{"entities": [{"name": ' if next(broken) % 7 == 0 else answer(body)

    with serving() as server:
        server.chat = chat
        server.delay = 0.02  # so that requests meet
        server.failures = [(429, {"Retry-After": "0.1"}, b""), (500, {}, b""), (200, {}, b"[]")]
        result, run = extract(database, extractor="llm", endpoint=server.url, llm_model="m", embed=False)
        assert server.most_at_once > 1
    assert (result["extracted"], len(result["failed_chunks"])) == (150, 1)
    assert "JSON" in result["failed_chunks"][0]["message"]
    assert run.ledger.failed_keys == [result["failed_chunks"][0]["chunk"]]
    hopper = entities("grace hopper", database=database)[0]
    assert (hopper.name, hopper.label, hopper.chunks) == ("Grace Hopper", "PERSON", 150)
    assert neighbours("Person Number7", database=database)[0].types == ("co_occurs", "meet")


def test_unavailable_llm_fails_the_job(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    database = str(tmp_path / "documents.db")
    ingestion(WatchedRun(), [str(tmp_path / "a.txt")], database=database, model="hashing:64")
    with serving() as server:
        server.chat = lambda body: "no"
        with pytest.raises(NothingExtractedError, match="all 1 chunks failed"):
            extract(database, extractor="llm", endpoint=server.url)
        assert len(server.requests) == 5
        server.failures = [(401, {}, b"wrong key")]
        with pytest.raises(EndpointError, match="wrong key"):
            extract(database, extractor="llm", endpoint=server.url)


def test_empty_store_error_names_the_job_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(EmptyStoreError, match="run ingestion first"):
        extract(str(tmp_path / "empty.db"))


def test_waiting_for_the_llm_is_shown_as_message(database: str) -> None:
    with serving() as server:
        server.chat = answer
        server.failures = [(503, {"Retry-After": "0.2"}, b"loading")]
        _, run = extract(database, extractor="llm", endpoint=server.url, embed=False)
    waited = [
        at
        for at, message in enumerate(run.messages)
        if message.startswith("Waiting: 127") and "responded with status 503: loading" in message
    ]
    assert run.messages[waited[-1] + 1] == ""


def test_options_of_other_extractors_are_refused(database: str) -> None:
    with pytest.raises(ValueError, match="extractor=llm"):
        extract(database, extractor="rules", llm_model="m")


@pytest.mark.parametrize(
    "content", [None, '{"entities": ' + "[" * 100_000, '{"entities": [{"name": null}], "relations": 3}']
)
def test_unusable_llm_output_fails_only_its_chunk(database: str, content: str | None) -> None:
    with serving() as server:
        server.chat = lambda body: (  # type: ignore[return-value]
            content if "Debian" in body["messages"][1]["content"] else answer(body)
        )
        result, _ = extract(database, extractor="llm", endpoint=server.url, embed=False)
    assert (result["extracted"], len(result["failed_chunks"])) == (150, 1)


def test_entity_name_with_lone_surrogate_is_stored(database: str) -> None:
    with serving() as server:
        server.chat = lambda body: (
            '{"entities": [{"name": "Grace\\ud83d Hopper\\u0000", "type": "A\\udc00"}, {"name": "Navy"}],'
            ' "relations": [{"source": "Navy\\ud83d", "type": "employ\\ud83d", "target": "Grace Hopper"}]}'
        )
        extract(database, extractor="llm", endpoint=server.url, embed=False)
    [hopper] = entities("hopper", database=database)
    assert (hopper.name, hopper.label) == ("Grace Hopper", "A")
    assert neighbours("navy", database=database)[0].types == ("co_occurs", "employ")
