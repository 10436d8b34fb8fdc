"""Encode ids for Redis, and decode jobs and events.

A canonical UUID is stored as its 16 bytes, which saves 20 bytes in the key and in each index. Any other id is stored
unchanged, with a leading ``=`` if it would be ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.record_codec import unpack

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


@lru_cache(4096)
def encode_id(job_id: str) -> bytes:
    """Return the stored form of an id."""
    if len(job_id) == 36 and _UUID.match(job_id):
        return bytes.fromhex(job_id.replace("-", ""))
    name = job_id.encode()
    return b"=" + name if len(name) == 16 or name.startswith(b"=") else name


def decode_id(stored: bytes) -> str:
    """Return the id of a stored form."""
    if len(stored) == 16:
        text = stored.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return decode_text(stored.removeprefix(b"="))


def decode_text(stored: bytes) -> str:
    """Return stored text; bytes that are not UTF-8 (a damaged record) are replaced."""
    return stored.decode("utf-8", "replace")


def decode_job(job_id: str, stored: bytes | None) -> Job | None:
    """Return the job of a packed record, or None without one."""
    if not stored:
        return None
    return Job.stored(job_id, stored)


def decode_event(job_id: str, version: int, kept: bytes) -> Event:
    """Return the event of a text ``kind NUL time NUL field=value NUL ...``."""
    kind, _, rest = decode_text(kept).partition("\0")
    at, _, fields = rest.partition("\0")
    text: Mapping[str, str] = unpack(fields.replace("\0", "\n")) if fields else {}
    return Event.stored(job_id, version, kind or text.get("status", ""), _whole(at), text)


def decode_kept_event(job_id: str, kept: bytes) -> Event:
    """Return the event of a text that starts with its version."""
    version, _, rest = kept.partition(b"\0")
    return decode_event(job_id, _whole(decode_text(version)), rest)


def decode_fields(flat: Any) -> dict[bytes, bytes]:
    """Return the fields of a hash or a stream entry, which is a flat list, or a dict in RESP3."""
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=False))


def feed_order(position: str) -> tuple[int, int]:
    """Return a position of the feed in a form that can be compared."""
    first, _, second = position.partition("-")
    return int(first), int(second or 0)


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0
