"""The document jobs: ingestion, extraction, reindex and clustering, and what they are for: search.

Owns everything about documents: reading them, cutting them, embedding them, keeping
them. The jobs are written with the same `Run` that users have. Each name is imported
when it is first asked for, since models and parsers take long to load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.documents.errors import BadDocument as BadDocument
    from milepost.documents.loaders import load as load
    from milepost.documents.searching import Searcher as Searcher
    from milepost.documents.searching import search as search
    from milepost.documents.store import DocumentStore as DocumentStore
    from milepost.documents.store import open_store as open_store

_WHERE = {
    "BadDocument": "errors",
    "DocumentStore": "store",
    "Searcher": "searching",
    "load": "loaders",
    "open_store": "store",
    "search": "searching",
}
__all__ = ["BadDocument", "DocumentStore", "Searcher", "load", "open_store", "search"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"milepost.documents.{_WHERE[name]}"), name)
