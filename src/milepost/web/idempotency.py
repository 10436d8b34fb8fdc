"""The same `Idempotency-Key` with the same body is the same job, for 24 hours. Owns what is kept of a request; knows no
job. (The header as in draft-ietf-httpapi-idempotency-key-header.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from milepost.core.encoding import key_text
from milepost.core.errors import StoreError
from milepost.stores.protocol import Item, Store
from milepost.web.principals import Principal
from milepost.web.problems import Problem

KEPT = 24 * 3600.0
UNDER_WAY_MICROS = 10_000_000
"""After so long a request without an answer is taken for lost, and may be taken up again with the job id that it had: well
within the time for which a client tries, whose first request met a store that was away."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The first answer to a key."""

    status: int
    job_id: str
    body: str
    replayed: bool = True


async def once(
    store: Store,
    principal: Principal,
    key: str,
    body: bytes,
    new_id: Callable[[], str],
    make: Callable[[str], Awaitable[Answered]],
) -> Answered:
    """The first answer to a key, made now or replayed. `make` is called with the id that the job is to have.

    Raises Problem 409 while the first request is under way, 422 when its body was another.
    """
    key_text(key, "Idempotency-Key", 255)
    name = hashlib.sha256(f"{principal.binding}\n{key}".encode()).hexdigest()
    shelf, digest = f"idempotency/{name}", hashlib.sha256(body).hexdigest()
    now = await store.now()
    begun = {"digest": digest, "job_id": new_id(), "at": now}
    version = await store.shelf_put(shelf, json.dumps(begun), version=0, ttl=KEPT)
    if version is None:
        item = await store.shelf_get(shelf)
        if item is None:
            raise Problem(409, "The first request with this Idempotency-Key has just expired; send it again")
        answered = _first(item, digest)
        if answered is not None:
            return answered
        begun = json.loads(item.value)
        if now - int(begun["at"]) < UNDER_WAY_MICROS:
            text = "The first request with this Idempotency-Key is still under way"
            raise Problem(409, text, headers={"Retry-After": "1"})
        begun["at"] = now
        version = await store.shelf_put(shelf, json.dumps(begun), version=item.version, ttl=KEPT)
        if version is None:
            raise Problem(409, "Another request takes this Idempotency-Key up", headers={"Retry-After": "1"})
    try:
        answer = await make(str(begun["job_id"]))
    except StoreError:
        raise  # it may have been applied: the same key takes the same job up again
    except Exception:
        await store.shelf_delete(shelf)  # refused, so nothing was made
        raise
    kept = {"digest": digest, "job_id": answer.job_id, "status": answer.status, "body": answer.body}
    await store.shelf_put(shelf, json.dumps(kept), version=version, ttl=KEPT)
    return answer


def _first(item: Item, digest: str) -> Answered | None:
    held = json.loads(item.value)
    if held["digest"] != digest:
        raise Problem(422, "This Idempotency-Key was used with another body")
    return Answered(held["status"], held["job_id"], held["body"]) if "status" in held else None
