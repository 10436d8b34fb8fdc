"""HTTP routes over the document store: ``/api/documents``, and below it ``/search``, ``/neighbours``, ``/entities``,
``/communities`` and the documents by id.

The server's configuration (`MILEPOST_DOCUMENTS`) chooses the database, never the caller. API keys that are restricted
to a value of the owner label (`MILEPOST_DOCUMENTS_OWNER_LABEL`) list, search and delete the documents of this owner.
Other restricted keys cannot read documents, and no restricted key can read what is computed from the documents of all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi import Path as PathParameter

from milepost.documents.configuration import from_environment
from milepost.documents.errors import StoreBusyError
from milepost.documents.http_endpoint import EndpointError
from milepost.documents.retrieval import Mode, Searcher
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.filters import DocumentFilter, parsed_where
from milepost.documents.store.records import Community, Entity, Hit, Neighbour, StoredDocument
from milepost.web.app import Route
from milepost.web.context import WebContext, principal_of
from milepost.web.http.problems import RETRY_LATER, Problem
from milepost.web.schemas import problems
from milepost.web.security.principals import DELETE, READ

T = TypeVar("T")
_MISSING = "asking the documents needs more packages: pip install 'milepost[documents]'"
_BOUND = "API keys that are restricted to labels, and share links, cannot read this"
_OTHER_LABELS = (
    "API keys must be restricted to one value of the label {label!r}, and to no other label, to read documents"
)
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
Where = Annotated[
    Sequence[str],
    Query(max_length=100, description="Metadata as NAME=VALUE; of several values of a name any matches"),
]
Owner = Annotated[
    str | None, Query(max_length=1000, description="Owner of the documents; restricted keys have their own")
]
Since = Annotated[str | None, Query(max_length=40, description="Earliest time of ingestion, in ISO 8601")]
DocumentId = Annotated[str, PathParameter(max_length=100)]


def attach_documents(app: FastAPI, *, database: str | Path | None = None, owner_label: str | None = None) -> None:
    """Add the document routes to an application of `milepost.web.create_app`, as `milepost serve` does."""
    app.include_router(create_documents_router(app.state.milepost, database=database, owner_label=owner_label))


def create_documents_router(
    context: WebContext, *, database: str | Path | None = None, owner_label: str | None = None
) -> APIRouter:
    """Return the document routes as a router with the access rules of `context`, which `milepost.web.attach` returns.

    API keys that are restricted to one value of `owner_label` (default: `MILEPOST_DOCUMENTS_OWNER_LABEL`), and to no other
    label, see the documents of that owner. Without it restricted keys see none.
    """
    context.has_documents = True
    access = [context.authenticator.require(READ)]
    router = APIRouter(route_class=Route, tags=["documents"], dependencies=access, responses=problems(501))
    library = _Library(database)
    label = owner_label or from_environment().owner_label

    def owner_of(request: Request) -> str | None:
        """Return the owner to whose documents the caller is restricted, or None. Raises Problem 403."""
        principal = principal_of(request)
        if not principal.bound:
            return None
        if (
            principal.job_id is None
            and label is not None
            and set(principal.labels) == {label}
            and principal.labels[label]
        ):
            return principal.labels[label]
        raise Problem(403, _BOUND if label is None else _OTHER_LABELS.format(label=label))

    def chosen(
        request: Request,
        under: Under = None,
        format: Format = None,
        since: Since = None,
        where: Where = (),
        owner: Owner = None,
    ) -> DocumentFilter:
        """Return which documents the caller asks for, and may see. Raises Problem 403."""
        own = owner_of(request)
        if owner is not None and own not in (None, owner):
            raise Problem(403, f"This API key sees the documents of {own!r:.100} only")
        return DocumentFilter(
            under, format, since, library.ask(lambda: parsed_where(where)), owner if own is None else own
        )

    def unbound(request: Request) -> None:
        if principal_of(request).bound:
            raise Problem(403, _BOUND)

    @router.get("/api/documents/search", responses=_HITS, summary="Chunks by meaning and words, best first")
    def search(
        q: Annotated[str, Query(min_length=1, max_length=_TEXT_MAX)],
        k: Annotated[int, Query(ge=1, le=1000)] = 10,
        mode: Mode = "hybrid",
        only: DocumentFilter = Depends(chosen),  # noqa: B008 - a closure cannot be in an annotation
        per_document: bool = False,
        min_score: float | None = None,
        context: Annotated[int, Query(ge=0, le=5)] = 0,
        rerank: bool = False,
    ) -> dict[str, Any]:
        found = library.ask(
            lambda: library.searcher.search(
                q,
                k,
                mode=mode,
                **asdict(only),
                per_document=per_document,
                min_score=min_score,
                context=context,
                rerank=rerank,
            )
        )
        return {"hits": [asdict(hit) for hit in found]}

    @router.get("/api/documents/entities", responses=_ENTITIES,
                dependencies=[Depends(unbound)], summary="Entities by the number of chunks that mention them")  # fmt: skip
    def entities(
        text: Annotated[str, Query(max_length=_TEXT_MAX)] = "", limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> dict[str, Any]:
        found = library.ask(lambda: library.store.entities(text=text, limit=limit))
        return {"entities": [asdict(entity) for entity in found]}

    @router.get("/api/documents/neighbours", responses=_NEIGHBOURS,
                dependencies=[Depends(unbound)], summary="What an entity is related to, nearest and heaviest first")  # fmt: skip
    def neighbours(
        entity: Annotated[str, Query(min_length=1, max_length=_TEXT_MAX)],
        hops: Annotated[int, Query(ge=1, le=4)] = 1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        found = library.ask(lambda: library.store.neighbours(entity, hops=hops, limit=limit))
        return {"neighbours": [asdict(neighbour) for neighbour in found]}

    @router.get("/api/documents/communities", responses=_COMMUNITIES,
                dependencies=[Depends(unbound)], summary="Communities of entities or chunks, by level and size")  # fmt: skip
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
        only: DocumentFilter = Depends(chosen),  # noqa: B008 - a closure cannot be in an annotation
        after: Annotated[str, Query(max_length=_TEXT_MAX)] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        found = library.ask(lambda: library.store.list_documents(text, only=only, after=after, limit=limit))
        return {"documents": [asdict(document) for document in found]}

    @router.get("/api/documents/{document_id}", responses={**_ONE_DOCUMENT, **problems(404)}, summary="A document")
    def document(document_id: DocumentId, owner: str | None = Depends(owner_of)) -> dict[str, Any]:
        found = library.ask(lambda: library.store.document(document_id, owner=owner))
        if found is None:
            raise _no_document()
        return asdict(found)

    @router.delete("/api/documents/{document_id}", status_code=204, responses=problems(404),
                   summary="Delete a document with its chunks and entities",
                   dependencies=[context.authenticator.require(DELETE)])  # fmt: skip
    def delete_document(document_id: DocumentId, owner: str | None = Depends(owner_of)) -> None:
        def delete() -> bool:
            store = library.store
            return store.document(document_id, owner=owner) is not None and store.delete_document(document_id)

        if not library.ask(delete):
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
