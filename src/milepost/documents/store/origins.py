"""Where documents come from: the folder of each, their owner and their metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from milepost.documents.store.records import Origins

if TYPE_CHECKING:
    from milepost.documents.store.database import Transaction


def write_origins(tx: Transaction, origins: Origins, document_ids: Iterable[str]) -> None:
    """Write the origins of these documents. An owner is never replaced, and metadata of other names are kept."""
    ids = sorted(document_ids)
    tx.many(
        """INSERT INTO document_roots (document_id, root) VALUES (?, ?)
        ON CONFLICT (document_id) DO UPDATE SET root = excluded.root WHERE document_roots.root <> excluded.root""",
        [(one, origins.roots[one]) for one in ids],
    )
    if origins.owner:
        tx.many(
            "INSERT INTO document_owners (document_id, owner) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(one, origins.owner) for one in ids],
        )
    tx.many(
        """INSERT INTO document_metadata (document_id, name, value) VALUES (?, ?, ?)
        ON CONFLICT (document_id, name) DO UPDATE SET value = excluded.value""",
        [(one, name, value) for one in ids for name, value in origins.metadata.items()],
    )
