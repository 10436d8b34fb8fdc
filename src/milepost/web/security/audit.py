"""Record administrative actions in the log `milepost.audit` and, for 90 days, in the store."""

from __future__ import annotations

import json
import logging

from milepost.core.serialization import from_micros, single_line
from milepost.stores.ids import new_job_id
from milepost.stores.protocol import Store
from milepost.web.security.principals import Principal

log = logging.getLogger("milepost.audit")
log.addHandler(logging.NullHandler())

TRAIL = "audit/"
RETENTION_SECONDS = 90 * 86_400.0


async def audit(store: Store, principal: Principal, action: str, subject: str = "", **details: object) -> None:
    """Record that a principal performed an action on a subject."""
    actor = single_line(principal.id or "anonymous")  # a custom `auth` may return any text
    entry = {
        "at": from_micros(await store.now()).isoformat(),
        "by": actor,
        "action": action,
        "subject": subject,
        **details,
    }
    log.info("%s by %s: %s %s", action, actor, subject, details or "")
    await store.kv_put(TRAIL + new_job_id(), json.dumps(entry, default=str), ttl=RETENTION_SECONDS)
