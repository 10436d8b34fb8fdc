"""HTTP routes over the document store: ``/api/documents``, and below it ``/search``, ``/neighbours``, ``/entities``,
``/communities`` and the documents by id.

The server's configuration (`MILEPOST_DOCUMENTS`) chooses the database, never the caller. API keys that are restricted
to labels cannot read documents, because documents have no per-user access control.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi import Path as PathParameter

from milepost.documents.errors import StoreBusyError
from milepost.documents.http_endpoint import EndpointError
from milepost.documents.retrieval import Mode, Searcher
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.filters import DocumentFilter
from milepost.documents.store.records import Community, Entity, Hit, Neighbour, StoredDocument
from milepost.web.app import Route
from milepost.web.context import WebContext, principal_of
from milepost.web.http.problems import RETRY_LATER, Problem
from milepost.web.schemas import problems
from milepost.web.security.principals import DELETE, READ

T = TypeVar("T")
_MISSING = "asking the documents needs more packages: pip install 'milepost[documents]'"
_TEXT_MAX = 2000


def _answers(name: str, *rows: Any) -> dict[int | str, dict[str, Any]]:
    """Return an example of a response, for OpenAPI."""
    return {200: {"content": {"application/json": {"example": {name: [asdict(row) for row in rows]}}}}}


_HITS = _answers("hits", Hit(0.83, "c-17", "d-2", "report.pdf", "Report", "Method", 7, 1200, 1890, "Each chunk is ..."))
_ENTITY = Entity("e-9", "Ada Lovelace", "PERSON", 41, 12)
_ENTITIES = _answers("entities", _ENTITY)
_NEIGHBOURS = _answers("neighbours", Neighbour(_ENTITY, ("wrote",), 5))
_COMMUNITIES = _answers("communities", Community("k-3", 0, "engines, tables, notes", 3, None, ("e-9", "e-12", "e-40")))


_DOCUMENT = StoredDocument(
    "d-2", "report.pdf", "Report", "pdf", 48_211, "9f86d081...", "60303ae2...", "t-2", "v-2", 1890, 9, 0, (), 4, 0,
    "2026-05-31T12:00:00+00:00", "file:///srv/papers",
)  # fmt: skip
_DOCUMENTS = _answers("documents", _DOCUMENT)
_ONE_DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": asdict(_DOCUMENT)}}}
}
Under = Annotated[str | None, Query(max_length=_TEXT_MAX, description="URI of a folder or document, or prefix of keys")]
Format = Annotated[str | None, Query(max_length=40, description="Format, for example pdf")]
Since = Annotated[str | None, Query(max_length=40, description="Earliest time of ingestion, in ISO 8601")]
DocumentId = Annotated[str, PathParameter(max_length=100)]


def attach_documents(app: FastAPI, *, database: str | Path | None = None) -> None:
    """Add the document routes to an application of `milepost.web.create_app`, as `milepost serve` does."""
    app.include_router(create_documents_router(app.state.milepost, database=database))


def create_documents_router(context: WebContext, *, database: str | Path | None = None) -> APIRouter:
    """Return the document routes as a router with the access rules of `context`, which `milepost.web.attach` returns."""
    access = [context.authenticator.require(READ), Depends(_unbound)]
    router = APIRouter(route_class=Route, tags=["documents"], dependencies=access, responses=problems(501))
    library = _Library(database)

    @router.get("/api/documents/search", responses=_HITS, summary="Chunks by meaning and words, best first")
    def search(
        q: Annotated[str, Query(min_length=1, max_length=_TEXT_MAX)],
        k: Annotated[int, Query(ge=1, le=1000)] = 10,
        mode: Mode = "hybrid",
        under: Under = None,
        format: Format = None,
        since: Since = None,
        per_document: bool = False,
        min_score: Annotated[float | None, Query(ge=-1, le=1)] = None,
    ) -> dict[str, Any]:
        found = library.ask(
            lambda: library.searcher.search(
                q, k, mode=mode, under=under, format=format, since=since, per_document=per_document, min_score=min_score
            )
        )
        return {"hits": [asdict(hit) for hit in found]}

    @router.get("/api/documents/entities", responses=_ENTITIES,
                summary="Entities by the number of chunks that mention them")  # fmt: skip
    def entities(
        text: Annotated[str, Query(max_length=_TEXT_MAX)] = "", limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> dict[str, Any]:
        found = library.ask(lambda: library.store.entities(text=text, limit=limit))
        return {"entities": [asdict(entity) for entity in found]}

    @router.get("/api/documents/neighbours", responses=_NEIGHBOURS,
                summary="What an entity is related to, nearest and heaviest first")  # fmt: skip
    def neighbours(
        entity: Annotated[str, Query(min_length=1, max_length=_TEXT_MAX)],
        hops: Annotated[int, Query(ge=1, le=4)] = 1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        found = library.ask(lambda: library.store.neighbours(entity, hops=hops, limit=limit))
        return {"neighbours": [asdict(neighbour) for neighbour in found]}

    @router.get("/api/documents/communities", responses=_COMMUNITIES,
                summary="Communities of entities or chunks, by level and size")  # fmt: skip
    def communities(
        of: Literal["entities", "chunks"] = "entities",
        level: Annotated[int | None, Query(ge=0, le=100)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        found = library.ask(lambda: library.store.communities(of, level=level, limit=limit))
        return {"communities": [asdict(community) for community in found]}

    @router.get("/api/documents", responses=_DOCUMENTS, summary="Documents in the order of their URIs")
    def documents(
        text: Annotated[str, Query(max_length=_TEXT_MAX)] = "",
        under: Under = None,
        format: Format = None,
        since: Since = None,
        after: Annotated[str, Query(max_length=_TEXT_MAX)] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        only = DocumentFilter(under, format, since)
        found = library.ask(lambda: library.store.list_documents(text, only=only, after=after, limit=limit))
        return {"documents": [asdict(document) for document in found]}

    @router.get("/api/documents/{document_id}", responses={**_ONE_DOCUMENT, **problems(404)}, summary="A document")
    def document(document_id: DocumentId) -> dict[str, Any]:
        found = library.ask(lambda: library.store.document(document_id))
        if found is None:
            raise _no_document()
        return asdict(found)

    @router.delete("/api/documents/{document_id}", status_code=204, responses=problems(404),
                   summary="Delete a document with its chunks and entities",
                   dependencies=[context.authenticator.require(DELETE)])  # fmt: skip
    def delete_document(document_id: DocumentId) -> None:
        if not library.ask(lambda: library.store.delete_document(document_id)):
            raise _no_document()

    return router


def _no_document() -> Problem:
    return Problem(404, "Document not found")


class _Library:
    """The store and the embedder, opened at the first request."""

    def __init__(self, database: str | Path | None) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._store: DocumentStore | None = None
        self._searcher: Searcher | None = None

    @property
    def store(self) -> DocumentStore:
        with self._lock:
            if self._store is None:
                self._store = open_store(self._database)
                self._store.on_wait = _refuse
            return self._store

    @property
    def searcher(self) -> Searcher:
        store = self.store
        with self._lock:
            if self._searcher is None:
                self._searcher = Searcher(store)
            return self._searcher

    def ask(self, question: Callable[[], T]) -> T:
        """Run a query, and turn its errors into responses."""
        try:
            return question()
        except ValueError as error:
            raise Problem(422, " ".join(str(error).split())) from None
        except (StoreBusyError, EndpointError) as away:
            raise Problem(503, str(away), headers=RETRY_LATER) from None
        except ImportError as missing:
            raise Problem(501, _MISSING) from missing


def _refuse(reason: str) -> None:
    """Refuse a request at once if the store is busy."""
    raise Problem(503, reason, headers=RETRY_LATER)


def _unbound(request: Request) -> None:
    if principal_of(request).bound:
        raise Problem(403, "API keys that are restricted to labels, and share links, cannot read documents")
