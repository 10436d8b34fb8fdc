"""The final messages of the document jobs, with counts."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 chunk``, ``1,050 chunks``, ``2 communities``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(parts: Iterable[str]) -> str:
    """Return the non-empty parts joined by commas."""
    return ", ".join(part for part in parts if part)


def ingested(*, documents: int, chunks: int, unchanged: int, failed: int) -> str:
    """Return ``Ingested 9 documents, 105 chunks (2 unchanged, 1 failed)``."""
    if not (documents or unchanged or failed):
        return "Nothing to do: no files found"
    beside = listed((f"{unchanged:,} unchanged" if unchanged else "", f"{failed:,} failed" if failed else ""))
    if not documents and unchanged and not failed:
        return f"Nothing to do: {counted(unchanged, 'document')} unchanged"
    done = f"Ingested {counted(documents, 'document')}, {counted(chunks, 'chunk')}"
    return f"{done} ({beside})" if beside else done


def extracted(*, chunks: int, unchanged: int, failed: int, entities: int, relations: int) -> str:
    """Return ``Extracted 105 chunks: 378 entities, 625 relations``."""
    found = listed((counted(entities, "entity", "entities"), counted(relations, "relation")))
    if not chunks and not failed:
        return f"Nothing to do: {counted(unchanged, 'chunk')} extracted before, {found}"
    beside = f" ({failed:,} failed)" if failed else ""
    return f"Extracted {counted(chunks, 'chunk')}{beside}: {found}"


def reindexed(*, changed: bool, documents: int, chunks: int) -> str:
    """Return ``Reindexed 9 documents, 160 chunks``."""
    if not changed:
        return f"Nothing to do: the index of {counted(documents, 'document')} is made like this already"
    return f"Reindexed {counted(documents, 'document')}, {counted(chunks, 'chunk')}"


def dropped(generations: int) -> str:
    """Return ``Dropped 1 unfinished index``."""
    return f"Dropped {counted(generations, 'unfinished index', 'unfinished indexes')}"


def clustered(*, nodes: str, finest: int, levels: int) -> str:
    """Return ``Found 50 communities of 320 entities, in 3 levels``."""
    return f"Found {counted(finest, 'community', 'communities')} of {nodes}, in {counted(levels, 'level')}"
