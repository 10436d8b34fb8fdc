"""Requests to a milepost server for what its client has no method for. Owns the paths; knows no terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from milepost.core.errors import InvalidInput, MissingExtra, StoreUnavailable

if TYPE_CHECKING:
    from milepost.cli.session import Session

SECONDS = 30.0


def ask(session: Session, method: str, path: str, **options: Any) -> Any:
    """One request below ``/api``; its JSON answer. Raises InvalidInput for what the server refuses, StoreUnavailable."""
    try:
        import httpx
    except ModuleNotFoundError as missing:
        raise MissingExtra("client", "a server as --url") from missing
    key = os.environ.get("MILEPOST_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = session.place.rstrip("/") + "/api" + path
    try:
        answer = httpx.request(method, url, headers=headers, timeout=SECONDS, **options)
    except httpx.HTTPError as error:
        raise StoreUnavailable(f"{session.shown_place} does not answer: {error}") from error
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = answer.reason_phrase
    if answer.status_code == 401:
        detail += "; put a key into MILEPOST_KEY"
    if answer.status_code in (503, 507):
        raise StoreUnavailable(detail)
    raise InvalidInput("server", f"{detail} ({answer.status_code})")
