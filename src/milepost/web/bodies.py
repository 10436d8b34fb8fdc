"""What a request may carry: JSON only, 1 MiB, nesting to 64. Owns the bounds; knows no route."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.requests import ClientDisconnect

from milepost.core.encoding import JSON_DEPTH
from milepost.web.problems import Problem

BODY_BYTES = 1024 * 1024
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string, or the rest of the text after a quote that is never closed: so that each byte is looked at once."""
_BRACKETS = re.compile(rb"[\[\]{}]")


async def read_body(request: Request) -> None:
    """Read the body within its bounds, so that FastAPI finds it read. Raises Problem 413, 415, 422."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > BODY_BYTES:
        raise Problem(413, f"The body is larger than {BODY_BYTES} bytes", headers={"Connection": "close"})
    size, parts = 0, []
    try:
        async for part in request.stream():
            size += len(part)
            if size > BODY_BYTES:
                raise Problem(413, f"The body is larger than {BODY_BYTES} bytes", headers={"Connection": "close"})
            parts.append(part)
    except ClientDisconnect:
        raise Problem(400, "The body broke off") from None  # nobody hears it: no error of the server either
    body = b"".join(parts)
    # Starlette keeps a body that was read here; every later reader is served from it.
    request._body = body
    if not body:
        return
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Problem(415, "The body must be application/json", headers={"Accept": "application/json"})
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Problem(422, "The body is not UTF-8") from None
    if depth(body) > JSON_DEPTH:
        raise Problem(422, f"The body nests deeper than {JSON_DEPTH}")


def depth(body: bytes) -> int:
    """How deep a JSON text nests, without parsing it: a parser would run out of stack first."""
    deepest = level = 0
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH:
        return 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", body)):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest
