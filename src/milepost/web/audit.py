"""Who changed what beside jobs: keys, limits, retention, forgotten stops. Owns the trail: the log `milepost.audit`, and
entries on the shelf that are kept for 90 days.
"""

from __future__ import annotations

import json
import logging

from milepost.core.encoding import moment
from milepost.stores.ids import new_job_id
from milepost.stores.protocol import Store
from milepost.web.principals import Principal

log = logging.getLogger("milepost.audit")
log.addHandler(logging.NullHandler())

TRAIL = "audit/"
KEPT = 90 * 86_400.0


async def audit(store: Store, principal: Principal, action: str, subject: str = "", **details: object) -> None:
    """Write down that somebody did something."""
    who = principal.id or "anybody"
    entry = {"at": moment(await store.now()).isoformat(), "by": who, "action": action, "subject": subject, **details}
    log.info("%s by %s: %s %s", action, who, subject, details or "")
    await store.shelf_put(TRAIL + new_job_id(), json.dumps(entry, default=str), ttl=KEPT)
