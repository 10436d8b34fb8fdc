"""What every document store must do. A store's own test is a class with a `database` fixture."""

from __future__ import annotations

from tests.documents.store_of_documents import DocumentConformance
from tests.documents.store_of_entities import EntityConformance


class StoreConformance(DocumentConformance, EntityConformance):
    """All of it."""
