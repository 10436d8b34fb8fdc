"""The document routes: results, problem documents, and access."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from milepost import InMemoryJobManager
from milepost.core.errors import InvalidInputError
from milepost.documents.jobs import HANDLERS, document_jobs
from milepost.documents.retrieval import MODES
from milepost.documents.routes import attach_documents, create_documents_router
from milepost.web import Principal, attach, auth, create_app
from milepost.web.security.principals import USER_SCOPES
from milepost.web.server import add_plugin_routes
from tests.documents.embedding_server import serving
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.watched_run import WatchedRun


@pytest.fixture
def database(folder: Path, tmp_path: Path) -> str:
    (folder / "a.txt").write_text("\n\n".join(PARAGRAPHS))
    name = str(tmp_path / "documents.db")
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], database=name, model="hashing:64", chunk_tokens=32)
    HANDLERS["extraction"](WatchedRun(), database=name, extractor="rules")
    HANDLERS["clustering"](WatchedRun(), database=name)
    return name


@pytest.fixture
def client(database: str) -> Iterator[TestClient]:
    app = create_app(InMemoryJobManager(), auth=auth.none())
    attach_documents(app, database=database)
    with TestClient(app) as opened:
        yield opened


def ask(client: TestClient, what: str, **parameters: Any) -> Any:
    answer = client.get(f"/api/documents/{what}".rstrip("/"), params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_routes_return_results(client: TestClient) -> None:
    hits = ask(client, "search", q="notes on the Analytical Engine", k=2)["hits"]
    assert len(hits) == 2
    assert "Analytical Engine" in hits[0]["text"]
    assert hits[0]["score"] >= hits[1]["score"]
    [ada] = ask(client, "entities", text="lovelace")["entities"]
    assert ada["name"] == "Ada Lovelace"
    near = ask(client, "neighbours", entity="Ada Lovelace")["neighbours"]
    assert "Analytical Engine" in [neighbour["entity"]["name"] for neighbour in near]
    communities = ask(client, "communities", level=0)["communities"]
    assert any("ada lovelace" in community["members"] for community in communities)


def test_documents_are_listed_shown_and_deleted(client: TestClient) -> None:
    [listed] = ask(client, "", text="a.txt")["documents"]
    assert ask(client, "", after=listed["uri"])["documents"] == []
    assert ask(client, "search", q="Analytical Engine", under=listed["uri"], per_document=True, mode="words")["hits"]
    assert ask(client, "search", q="towers", min_score=1)["hits"] == []
    assert client.get(f"/api/documents/{listed['document_id']}").json() == listed
    assert client.delete(f"/api/documents/{listed['document_id']}").status_code == 204
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"/api/documents/{listed['document_id']}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "Document not found")
    assert ask(client, "search", q="towers")["hits"] == []


@pytest.mark.parametrize(
    "query",
    [
        "?since=x",
        "search",
        "search?q=%20",
        "search?q=a&k=0",
        "neighbours?entity=a&hops=9",
        "communities?of=x",
        "?where=x",
        "?owner=%00",
        "search?q=a&where=a=%00",
    ],
)
def test_invalid_query_returns_a_problem(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/documents{'' if query[0] == '?' else '/'}{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_empty_store_returns_empty_lists(tmp_path: Path) -> None:
    app = create_app(InMemoryJobManager(), auth=auth.none())
    attach_documents(app, database=tmp_path / "none.db")
    with TestClient(app) as client:
        assert ask(client, "search", q="anything") == {"hits": []}
        assert ask(client, "communities") == {"communities": []}


def test_label_bound_keys_cannot_read_documents(database: str) -> None:
    def known(request: Request) -> Principal:
        labels = {"tenant": "a"} if request.headers.get("x-tenant") else {}
        scopes = {"jobs:read"} if request.headers.get("x-reader") else USER_SCOPES
        return Principal("user", labels=labels, scopes=frozenset(scopes))

    app = FastAPI()
    context = attach(app, InMemoryJobManager(), auth=known)
    app.include_router(create_documents_router(context, database=database))
    with TestClient(app) as client:
        assert ask(client, "entities")["entities"]
        assert client.get("/api/documents/entities", headers={"x-tenant": "a"}).status_code == 403
        assert client.delete("/api/documents/a", headers={"x-tenant": "a"}).status_code == 403
        assert client.delete("/api/documents/a", headers={"x-reader": "a"}).status_code == 403


def test_serve_includes_document_routes(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILEPOST_DOCUMENTS", database)
    app = create_app(InMemoryJobManager(), auth=auth.none())
    add_plugin_routes(app)
    with TestClient(app) as client:
        assert ask(client, "entities", limit=1)["entities"]


def test_endpoint_refusal_is_reported(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a.txt").write_text(PARAGRAPHS[0])
    app = create_app(InMemoryJobManager(), auth=auth.none())
    attach_documents(app, database=tmp_path / "a.db")
    with serving() as server, TestClient(app) as client:
        monkeypatch.setenv("MILEPOST_EMBEDDING_URL", server.url)
        HANDLERS["ingestion"](WatchedRun(), [str(folder)], database=str(tmp_path / "a.db"), model="http:m")
        server.failures = [(401, {}, b"bad key")]
        answer = client.get("/api/documents/search", params={"q": "towers"})
        assert (answer.status_code, answer.json()["detail"].partition(" ")[2]) == (
            503,
            "responded with status 401: bad key",
        )
        assert ask(client, "search", q="towers")["hits"]


def test_owner_key_reads_and_deletes_only_its_documents(folder: Path, tmp_path: Path) -> None:
    """Keys bound to the owner label list, search, show and delete their documents, and find no others."""
    (folder / "a.txt").write_text("\n\n".join(PARAGRAPHS))
    database = str(tmp_path / "owned.db")
    handler = document_jobs(owner_label="tenant", database=database, model="hashing:64")["ingestion"]
    for tenant in ("a", "b", ""):
        handler(WatchedRun(labels={"tenant": tenant} if tenant else {}), [str(folder)], key="papers")

    def known(request: Request) -> Principal:
        labels = dict(part.split("=") for part in request.headers.get("x-labels", "").split(",") if part)
        return Principal("user", labels=labels)

    app = FastAPI()
    context = attach(app, InMemoryJobManager(), auth=known)
    app.include_router(create_documents_router(context, database=database, owner_label="tenant"))
    with TestClient(app) as client:
        every = ask(client, "")["documents"]
        assert {one["owner"] for one in every} == {"", "a", "b"}
        assert len({one["uri"] for one in every}) == 1, "owners have documents of their own under the same key"
        page = [one["document_id"] for one in ask(client, "", limit=2)["documents"]]
        page += [one["document_id"] for one in ask(client, "", after=page[-1])["documents"]]
        assert page == [one["document_id"] for one in every]
        theirs = {one["owner"]: one["document_id"] for one in every}

        mine = {"x-labels": "tenant=a"}
        assert [one["owner"] for one in client.get("/api/documents", headers=mine).json()["documents"]] == ["a"]
        for mode in MODES:
            found = client.get(
                "/api/documents/search", params={"q": "Analytical Engine", "k": 100, "mode": mode}, headers=mine
            ).json()["hits"]
            assert {hit["document_id"] for hit in found} == {theirs["a"]}
        for owner in ("b", ""):
            for method in ("GET", "DELETE"):
                assert client.request(method, f"/api/documents/{theirs[owner]}", headers=mine).status_code == 404
        for what in ("entities", "neighbours?entity=a", "communities"):
            assert client.get(f"/api/documents/{what}", headers=mine).status_code == 403
        assert {one["owner"] for one in ask(client, "", owner="b")["documents"]} == {"b"}
        for owner, status in (("a", 200), ("b", 403)):
            assert client.get("/api/documents", params={"owner": owner}, headers=mine).status_code == status
        for labels in ("tenant=a,user=u", "user=u"):
            for what in ("", "/search?q=a", f"/{theirs['a']}"):
                answer = client.get(f"/api/documents{what}", headers={"x-labels": labels})
                assert answer.status_code == 403, "the owner does not tell them apart"
        assert client.get("/api/documents/search", params={"q": "a"}, headers={"x-labels": "tenant=c"}).json() == {
            "hits": []
        }
        assert client.delete(f"/api/documents/{theirs['a']}", headers=mine).status_code == 204
        assert {one["owner"] for one in ask(client, "")["documents"]} == {"", "b"}


def test_metadata_restricts_lists_and_searches(client: TestClient, folder: Path, database: str) -> None:
    (folder / "b.txt").write_text(PARAGRAPHS[0])
    run = WatchedRun(labels={"batch": "7"})
    given = {"team": "engines", "year": 1843, "draft": True}
    HANDLERS["ingestion"](run, [str(folder / "b.txt")], database=database, metadata=given)
    [found] = ask(client, "", where=["team=engines", "team=towers", "year=1843", "batch=7"])["documents"]
    assert found["metadata"] == {"team": "engines", "year": "1843", "draft": "true", "batch": "7"}
    hits = ask(client, "search", q="Analytical Engine", k=100, where="draft=true")["hits"]
    assert {hit["document_id"] for hit in hits} == {found["document_id"]}
    assert ask(client, "search", q="Analytical Engine", where="team=other")["hits"] == []
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], database=database, metadata={"team": "all"})
    assert len(ask(client, "", where="team=all")["documents"]) == 2, "unchanged documents get it as well"
    assert len(ask(client, "", where="year=1843")["documents"]) == 1, "other names keep their values"
    for bad in ({"a": [1]}, {"a=b": 1}, {"a": "\0"}, {"\0": 1}, {str(n): n for n in range(40)}):
        with pytest.raises(InvalidInputError, match="metadata"):
            HANDLERS["ingestion"](WatchedRun(), [str(folder)], database=database, metadata=bad)
