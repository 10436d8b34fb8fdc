"""The conformance suite of document stores. A store's test is a subclass with a `database` fixture."""

from __future__ import annotations

from tests.documents.document_conformance import DocumentConformance
from tests.documents.entity_conformance import EntityConformance
from tests.documents.fencing_conformance import FencingConformance
from tests.documents.search_conformance import SearchConformance
from tests.documents.vector_conformance import VectorConformance


class StoreConformance(
    DocumentConformance, SearchConformance, EntityConformance, FencingConformance, VectorConformance
):
    """The whole suite."""
