"""The document jobs: ingestion, extraction, reindex and clustering, and what they are for: search.

Owns everything about documents: reading them, cutting them, embedding them, keeping
them. The jobs are in `milepost.documents.jobs`, written with the same `Run` that users
have. Models and parsers are loaded when they are first needed.
"""

from __future__ import annotations

from milepost.documents.errors import BadDocument, EmptyStore
from milepost.documents.loaders import load
from milepost.documents.searching import Searcher, communities, entities, neighbours, search
from milepost.documents.store import DocumentStore, open_store

__all__ = [
    "BadDocument",
    "DocumentStore",
    "EmptyStore",
    "Searcher",
    "communities",
    "entities",
    "load",
    "neighbours",
    "open_store",
    "search",
]
