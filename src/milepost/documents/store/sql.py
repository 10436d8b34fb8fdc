"""All verbs of a document store, over any database that has a port."""

from __future__ import annotations

from milepost.documents.store.entities import EntityVerbs
from milepost.documents.store.generations import GenerationVerbs


class SqlDocumentStore(GenerationVerbs, EntityVerbs):
    """A `DocumentStore` in SQL."""
