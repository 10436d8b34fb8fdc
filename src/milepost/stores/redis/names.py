"""Ids as they are stored, and jobs and events as they come back. Owns the short forms; sends nothing.

An id that is a canonical UUID is stored as its 16 bytes, which saves 20 bytes in the key and in each index. Any other
id is stored as it is; one that would look like something else gets a ``=`` in front.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.packing import unpack

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


@lru_cache(4096)
def raw(job_id: str) -> bytes:
    """An id as it is stored."""
    if len(job_id) == 36 and _UUID.match(job_id):
        return bytes.fromhex(job_id.replace("-", ""))
    name = job_id.encode()
    return b"=" + name if len(name) == 16 or name.startswith(b"=") else name


def plain(stored: bytes) -> str:
    """The id of its stored form."""
    if len(stored) == 16:
        text = stored.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return text_of(stored.removeprefix(b"="))


def text_of(stored: bytes) -> str:
    """A text of the store; what is not UTF-8 (a damaged record) is replaced."""
    return stored.decode("utf-8", "replace")


def job_of(job_id: str, stored: bytes | None) -> Job | None:
    """The job of a packed text, without its events; None for no text."""
    if not stored:
        return None
    return Job.stored(job_id, stored)


def event_of(job_id: str, version: int, kept: bytes) -> Event:
    """The event of a text ``kind NUL time NUL field=value NUL ...``."""
    kind, _, rest = text_of(kept).partition("\0")
    at, _, fields = rest.partition("\0")
    text: Mapping[str, str] = unpack(fields.replace("\0", "\n")) if fields else {}
    return Event.stored(job_id, version, kind or text.get("status", ""), _whole(at), text)


def kept_event_of(job_id: str, kept: bytes) -> Event:
    """The event of a text that begins with its version."""
    version, _, rest = kept.partition(b"\0")
    return event_of(job_id, _whole(text_of(version)), rest)


def fields_of(flat: Any) -> dict[bytes, bytes]:
    """The fields of a hash or a stream entry, which come as a list, or as a dict in RESP3."""
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=False))


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0
