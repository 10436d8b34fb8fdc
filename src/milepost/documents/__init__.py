"""Document processing: ingestion, extraction, reindex and clustering jobs, and search over their results.

The jobs are in `milepost.documents.jobs`. Models and parsers are imported when first used.
"""

from __future__ import annotations

from milepost.documents.errors import BadDocumentError, EmptyStoreError
from milepost.documents.loaders import load
from milepost.documents.retrieval import (
    Searcher,
    communities,
    delete_document,
    entities,
    get_document,
    list_documents,
    neighbours,
    search,
)
from milepost.documents.store import DocumentStore, open_store

__all__ = [
    "BadDocumentError",
    "DocumentStore",
    "EmptyStoreError",
    "Searcher",
    "communities",
    "delete_document",
    "entities",
    "get_document",
    "list_documents",
    "load",
    "neighbours",
    "open_store",
    "search",
]
