"""Document jobs with an endpoint that answers badly: one bad answer or one refused text costs one document at most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milepost.core.errors import InvalidInputError
from milepost.documents.configuration import from_environment
from milepost.documents.embed import EmbeddingRefusedError, HashingEmbedder
from milepost.documents.embed.models import HttpEmbedder
from milepost.documents.errors import BadDocumentError
from milepost.documents.extract import get_extractor
from milepost.documents.extract.language_model import find_answer
from milepost.documents.extraction import NothingExtractedError, extraction
from milepost.documents.http_endpoint import EndpointError
from milepost.documents.ingestion import NothingIngestedError
from milepost.documents.jobs import document_jobs
from milepost.documents.reindex import reindex
from milepost.documents.store import open_store
from tests.documents.embedding_server import Server, serving
from tests.documents.ingestion_fixture import counts, rows, run_job
from tests.documents.watched_run import WatchedRun

NOW = {"Retry-After": "0"}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.mark.parametrize(
    "content",
    [
        b"<html>", b"null", b'{"data": []}', b'{"data": [{"index": 0, "embedding": null}]}',
        b'{"data": [{"index": 0, "embedding": [NaN]}]}',
    ],
)  # fmt: skip
def test_response_without_vectors_is_requested_again(server: Server, content: bytes) -> None:
    """One such response among good ones failed the job."""
    server.failures = [(200, NOW, content)] * 3
    embedder = HttpEmbedder(server.url, model="m")
    assert np.allclose(embedder.embed(["a", "b"]), HashingEmbedder(64).embed(["a", "b"]), atol=1e-6)
    assert len(server.requests) == 4
    embedder.close()


def test_refused_batch_is_requested_text_by_text(server: Server) -> None:
    server.refuses = lambda text: text.startswith("long")
    embedder = HttpEmbedder(server.url, model="m", batch=4)
    texts = [f"text {number}" for number in range(10)]
    texts[2], texts[9] = "long 2", "long 9"
    with pytest.raises(EmbeddingRefusedError, match="400: the input is longer") as refused:
        embedder.embed(texts)
    embedder.close()
    assert sorted(refused.value.refused) == [2, 9]
    expected = HashingEmbedder(64).embed(texts)
    expected[[2, 9]] = 0
    assert np.allclose(refused.value.vectors, expected, atol=1e-6)


def test_text_that_breaks_the_endpoint_is_refused(server: Server) -> None:
    """Servers answer a text that is too long with status 500, or with NaN, as well."""
    server.failures = [(500, NOW, b"input is too large to process")] * 4
    embedder = HttpEmbedder(server.url, model="m", dimension=64)
    assert embedder.embed(["it is an outage, since the next request is answered"]).shape == (1, 64)
    server.failures = [(500, NOW, b"too large")] * 4 + [(200, NOW, _vector())] + [(500, NOW, b"too large")] * 4
    with pytest.raises(EmbeddingRefusedError, match="too large"):
        embedder.embed(["long"])
    embedder.close()


def _vector() -> bytes:
    return json.dumps({"data": [{"index": 0, "embedding": [1.0] * 64}]}).encode()


def test_endpoint_that_refuses_every_text_fails_the_job(server: Server, folder: Path, database: str) -> None:
    (folder / "a.txt").write_text("A text.")
    run_job(database, folder, model="http:m", endpoint=server.url)
    server.refuses = lambda text: True
    (folder / "b.txt").write_text("Another text.")
    with pytest.raises(EndpointError, match="400") as failed:
        run_job(database, folder, model=None, endpoint=server.url)
    assert not isinstance(failed.value, EmbeddingRefusedError)
    assert len(server.requests) < 10


def test_refused_text_costs_one_document(server: Server, folder: Path, database: str, tmp_path: Path) -> None:
    """It failed the job, and each later job as well, with nothing published."""
    for number in range(6):
        (folder / f"{number}.txt").write_text(f"Document {number} about towers.\n\n" * 30)
    (folder / "2.txt").write_text("Lamps.\n\n" * 50 + "Unpronounceable.\n\n" * 20)
    server.refuses = lambda text: "Unpronounceable" in text
    options: dict[str, Any] = {"model": "http:m", "endpoint": server.url, "chunk_tokens": 32}
    result, run = run_job(database, folder, **options)
    assert (result["ingested"], [(bad["file"][-5:], bad["code"]) for bad in result["failed"]]) == (
        5,
        [("2.txt", "embedding_refused")],
    )
    assert "longer than the context" in result["failed"][0]["message"]
    assert run.ledger.failed_keys == [result["failed"][0]["file"]]
    assert all(stage.total is None or stage.done == stage.total for stage in run.stages)
    assert counts(database)["documents"] == 5
    (folder / "2.txt").unlink()
    undisturbed = str(tmp_path / "undisturbed.db")
    run_job(undisturbed, folder, **options)
    assert rows(database) == rows(undisturbed)


def test_refused_text_fails_a_strict_job(server: Server, folder: Path, database: str) -> None:
    for name in ("good", "long"):
        (folder / f"{name}.txt").write_text(f"A {name} text.")
    server.refuses = lambda text: "long" in text
    with pytest.raises(NothingIngestedError, match="embedding_refused"):
        run_job(database, folder, model="http:m", endpoint=server.url, strict=True)
    (folder / "good.txt").unlink()
    with pytest.raises(NothingIngestedError, match="1 of 1 document"):
        run_job(str(database) + "2", folder, model="http:m", endpoint=server.url)


def test_refused_text_fails_reindex_and_keeps_the_index(server: Server, folder: Path, database: str) -> None:
    for name in ("good", "long"):
        (folder / f"{name}.txt").write_text(f"A {name} text.")
    run_job(database, folder)
    before = rows(database)
    server.refuses = lambda text: "long" in text
    with pytest.raises(BadDocumentError, match=r"long\.txt cannot be part of the new index"):
        reindex(WatchedRun(), database=database, model="http:m", endpoint=server.url)
    assert rows(database) == before


LIBRARY = [f"Chunk {number} is about Grace Hopper." for number in range(30)]


@pytest.fixture
def chunks(folder: Path, database: str) -> str:
    """Return a store with 30 chunks."""
    for number, text in enumerate(LIBRARY):
        (folder / f"{number:02}.txt").write_text(text)
    run_job(database, folder)
    return database


def extract(database: str, server: Server, **options: Any) -> tuple[dict[str, Any], WatchedRun]:
    run = WatchedRun()
    options = {"extractor": "llm", "endpoint": server.url, "embed": False, **options}
    return extraction(run, database=database, **options), run


HOPPER = '{"entities": [{"name": "Grace Hopper", "type": "PERSON"}], "relations": []}'


@pytest.mark.parametrize(
    "content",
    [
        f'<think>The form is {{"entities": []}}</think>\n{HOPPER}',
        f'The form is {{"entities": []}}, so\n</think>{HOPPER}',
        f'Like {{"entities": []}}:\n```json\n{HOPPER}\n```\nWith {{braces}} and {{"name": 1}}.',
        f'{{"result": {HOPPER}}}',
    ],
)
def test_answer_is_found_beside_reasoning_and_prose(content: str) -> None:
    """The first brace won, so chunks of a thinking model were stored as done without entities."""
    assert find_answer(content) == json.loads(HOPPER)


@pytest.mark.parametrize("content", [None, "", "no", "{" * 100_000, '{"a":' * 100_000, f"<think>{HOPPER}", '{"x": 1}'])
def test_response_without_an_answer_is_refused(content: str | None) -> None:
    with pytest.raises(ValueError, match="it contains no"):
        find_answer(content)


def test_chunks_without_entities_are_a_warning(server: Server, chunks: str) -> None:
    server.chat = lambda body: HOPPER if "7" in body["messages"][1]["content"] else '{"entities": []}'
    result, run = extract(chunks, server)
    assert (result["extracted"], result["warnings"]) == (30, ["mostly_without_entities"])
    assert "no entity was found in 27 of 30 chunks" in run.logged
    server.chat = lambda body: HOPPER
    assert extract(chunks, server, llm_model="other")[0]["warnings"] == []


def test_chat_endpoint_without_answers_ends_the_job_early(server: Server, chunks: str) -> None:
    server.chat = lambda body: "I would rather not."
    with pytest.raises(NothingExtractedError, match="each of the first 20 chunks failed: the response is not the"):
        extract(chunks, server)
    assert len(server.requests) < 30 * 5
    server.chat = lambda body: HOPPER if int(body["messages"][1]["content"].split()[1]) % 10 else "no"
    assert len(extract(chunks, server)[0]["failed_chunks"]) == 3
    assert len(extract(chunks, server)[0]["failed_chunks"]) == 3


def test_chunk_refused_by_a_chat_endpoint_is_skipped(server: Server, chunks: str) -> None:
    server.chat = lambda body: HOPPER
    server.failures = [(400, {}, b"the context is too long")]
    result, _ = extract(chunks, server)
    assert (result["extracted"], len(result["failed_chunks"]), len(server.requests)) == (29, 1, 30)
    assert "the context is too long" in result["failed_chunks"][0]["message"]


def test_chat_settings_are_sent(server: Server, chunks: str) -> None:
    server.chat = lambda body: json.dumps(
        {
            "entities": [{"name": "Grace Hopper", "type": "person"}, {"name": "Chunk", "type": "THING"}],
            "relations": [
                {"source": "Grace Hopper", "type": type_, "target": "Chunk"} for type_ in ("write", "WORK FOR")
            ],
        }
    )
    jobs = document_jobs(llm_response_format="json_schema", llm_max_tokens=500, llm_concurrency=1)
    server.delay = 0.005
    run = WatchedRun()
    result = jobs["extraction"](
        run,
        database=chunks,
        extractor="llm",
        endpoint=server.url,
        embed=False,
        entity_types=["PERSON", "WORK"],
        relation_types=["work for"],
    )
    assert server.most_at_once == 1
    body = server.requests[0][1]
    assert body["max_tokens"] == 500
    schema = body["response_format"]["json_schema"]["schema"]["properties"]
    assert schema["entities"]["items"]["properties"]["type"]["enum"] == ["PERSON", "WORK"]
    assert schema["relations"]["items"]["properties"]["type"]["enum"] == ["work for"]
    assert "only entities of these types: PERSON, WORK." in body["messages"][0]["content"]
    store = open_store(chunks)
    assert [(entity.name, entity.label) for entity in store.entities()] == [("Grace Hopper", "PERSON")]
    store.close()
    other = get_extractor("llm", endpoint=server.url, entity_types=["PERSON"])
    assert other.configuration != result["extractor"], "other types are another extraction"


def test_cut_response_is_named(server: Server, chunks: str) -> None:
    cut = {"choices": [{"message": {"content": '{"entities": ['}, "finish_reason": "length"}]}
    server.failures = [(200, {}, json.dumps(cut).encode())] * 1000
    with pytest.raises(NothingExtractedError, match="cut at the maximum number of tokens"):
        extract(chunks, server)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MILEPOST_LLM_RESPONSE_FORMAT", "xml"),
        ("MILEPOST_LLM_MAX_TOKENS", "0"),
        ("MILEPOST_LLM_MAX_TOKENS", "many"),
        ("MILEPOST_LLM_CONCURRENCY", "0"),
        ("MILEPOST_EMBEDDING_CONCURRENCY", "65"),
    ],
)
def test_invalid_endpoint_setting_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name}: "):
        from_environment({name: value})


@pytest.mark.parametrize(("name", "value"), [("llm_max_tokens", 0), ("llm_concurrency", 65)])
def test_invalid_limit_in_code_names_its_argument(name: str, value: int) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name}: "):
        document_jobs(**{name: value})
