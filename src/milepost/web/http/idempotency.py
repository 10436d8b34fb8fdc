"""Return the first response again when a caller repeats a request with the same `Idempotency-Key` within 24 hours.

The header follows draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from milepost.core.errors import StoreError
from milepost.core.serialization import validate_key
from milepost.stores.protocol import KeyValue, Store
from milepost.web.http.problems import RETRY_SOON, Problem
from milepost.web.security.principals import Principal

RETENTION_SECONDS = 24 * 3600.0
IN_PROGRESS_MICROS = 10_000_000
"""Time after which a request without a response counts as lost. A repeated request then continues with the same job id.
It is well below the time for which clients retry while the store is unavailable.
"""


@dataclass(frozen=True, slots=True)
class FirstResponse:
    """The first response to an idempotency key."""

    status: int
    job_id: str
    body: str
    replayed: bool = True


async def run_once(
    store: Store,
    principal: Principal,
    key: str,
    body: bytes,
    new_id: Callable[[], str],
    make: Callable[[str], Awaitable[FirstResponse]],
) -> FirstResponse:
    """Return the first response to an idempotency key: a stored one, or that of `make`, which gets the id of the new
    job.

    Raises Problem 409 while the first request is in progress, and 422 if its body was different.
    """
    validate_key(key, "Idempotency-Key", 255)
    name = hashlib.sha256(f"{principal.name}\n{key}".encode()).hexdigest()
    entry, digest = f"idempotency/{name}", hashlib.sha256(body).hexdigest()
    now = await store.now()
    begun = {"digest": digest, "job_id": new_id(), "at": now}
    version = await store.kv_put(entry, json.dumps(begun), version=0, ttl=RETENTION_SECONDS)
    if version is None:
        item = await store.kv_get(entry)
        if item is None:
            raise Problem(409, "The first request with this Idempotency-Key has just expired; repeat the request")
        answered = _first(item, digest)
        if answered is not None:
            return answered
        begun = json.loads(item.value)
        if now - int(begun["at"]) < IN_PROGRESS_MICROS:
            text = "A request with this Idempotency-Key is already in progress"
            raise Problem(409, text, headers=RETRY_SOON)
        begun["at"] = now
        version = await store.kv_put(entry, json.dumps(begun), version=item.version, ttl=RETENTION_SECONDS)
        if version is None:
            text = "A request with this Idempotency-Key is already in progress"
            raise Problem(409, text, headers=RETRY_SOON)
    try:
        answer = await make(str(begun["job_id"]))
    except StoreError:
        raise  # it may have been applied; the key keeps its job id for the repeated request
    except Exception:
        await store.kv_delete(entry)  # refused, so no job was created
        raise
    kept = {"digest": digest, "job_id": answer.job_id, "status": answer.status, "body": answer.body}
    await store.kv_put(entry, json.dumps(kept), version=version, ttl=RETENTION_SECONDS)
    return answer


def _first(item: KeyValue, digest: str) -> FirstResponse | None:
    held = json.loads(item.value)
    if held["digest"] != digest:
        raise Problem(422, "This Idempotency-Key was already used with a different request body")
    return FirstResponse(held["status"], held["job_id"], held["body"]) if "status" in held else None
