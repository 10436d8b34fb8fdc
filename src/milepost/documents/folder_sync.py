"""What a sync of folders removes and moves: documents whose file is gone or has another name."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import Final

from milepost.core.errors import InvalidInputError
from milepost.documents.document_ids import content_hash
from milepost.documents.errors import BadDocumentError, SupersededError
from milepost.documents.file_selection import FileSelection, Source
from milepost.documents.store import DocumentStore
from milepost.documents.store.records import StoredDocument

_MAX_SHARE: Final = 0.5
"""The share of a folder's documents that a sync removes without `force`."""


class FolderSync:
    """The documents below the ingested folders whose files are gone, compared before anything is loaded.

    `moves` maps the id of a new document to the id of the one that it replaces: its file is gone and had the same
    content. `skipped` is the first path that is missing or unreadable, or empty. With such a path nothing is removed.
    """

    def __init__(
        self,
        store: DocumentStore,
        found: FileSelection,
        *,
        key: str | None,
        owner: str = "",
        force: bool,
        max_bytes: int,
    ) -> None:
        self.moves: dict[str, str] = {}
        self.skipped = ""
        self._store = store
        self._gone: list[StoredDocument] = []
        if found.missing:
            self.skipped = found.missing[0][0]
            return
        if not found.folders:
            raise InvalidInputError("sync", "requires a folder among the paths; files and globs cannot be synchronised")
        present = {source.document_id for source in found.sources} | found.left_out
        known: set[str] = set()
        below: dict[str, list[StoredDocument]] = defaultdict(list)
        for document in store.documents():
            known.add(document.document_id)
            if document.owner == owner and (folder := _folder_of(document, found.folders, key)) is not None:
                below[folder].append(document)
        gone = {folder: [one for one in stored if one.document_id not in present] for folder, stored in below.items()}
        new = [source for source in found.sources if source.document_id not in known]
        self._find_moves(new, [one for some in gone.values() for one in some], max_bytes)
        moved = set(self.moves.values())
        for folder, some in gone.items():
            removed = [one for one in some if one.document_id not in moved]
            if len(removed) > _MAX_SHARE * len(below[folder]) and not force:
                raise InvalidInputError(
                    "sync",
                    f"would remove {len(removed):,} of {len(below[folder]):,} documents of {folder}; check that the folder "
                    "is mounted, or pass force=true",
                )
            self._gone += removed

    def remove(self) -> int:
        """Delete the documents whose files are gone, each in a transaction. Return their number.

        A document that a later run has written is kept.
        """
        removed = 0
        for document in self._gone:
            with contextlib.suppress(SupersededError):
                removed += self._store.delete_document(document.document_id)
        return removed

    def _find_moves(self, new: list[Source], gone: list[StoredDocument], max_bytes: int) -> None:
        """Pair new files with documents of the same content. Only files of the size of such a document are read."""
        waiting: dict[str, list[str]] = defaultdict(list)
        for document in gone:
            waiting[document.content_hash].append(document.document_id)
        sizes = {document.size for document in gone}
        for source in new:
            if source.size in sizes:
                try:
                    with source.local_path(max_bytes) as path:
                        same = waiting[content_hash(path)]
                except (OSError, BadDocumentError):
                    continue  # loading it reports the error
                if same:
                    self.moves[source.document_id] = same.pop()


def _folder_of(document: StoredDocument, folders: list[str], key: str | None) -> str | None:
    """Return the ingested folder that a document belongs to, or None."""
    if key is None:
        if not document.uri.startswith("file:"):
            return None
    elif document.uri != key and not document.uri.startswith(f"{key.rstrip('/')}/"):
        return None
    for folder in folders:
        inside = f"{folder.rstrip('/')}/"
        if document.root == folder or document.root.startswith(inside) or document.uri.startswith(inside):
            return folder
    return None
