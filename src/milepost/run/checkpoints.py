"""Writes checkpoints: the call returns only when the store has the value."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from milepost.core.errors import OutcomeUnknownError, StoreUnavailableError
from milepost.core.transitions import plan_checkpoint
from milepost.run.heartbeat import ReacquireLease
from milepost.run.protocol import RunProtocol
from milepost.run.stop_reason import stop_reason
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write

log = logging.getLogger("milepost.run")

RETRY_INTERVAL = 0.5


async def write_checkpoint(
    store: Store,
    run: RunProtocol,
    text: str,
    report: Mapping[str, str],
    *,
    until_stopped: bool,
    reacquire: ReacquireLease | None = None,
) -> None:
    """Write a checkpoint with the report of the run, and return when the store has it.

    With `until_stopped` an outage is retried until the run is stopped, so that it does not fail the run. `reacquire` as
    in `Heartbeat.add`. Raises the RunStop of a run that may not write, else StoreError.
    """
    token = run.token
    write = Write(run.job_id, plan_checkpoint(new_operation_id(), token, text, report), answer=False)
    warned = False
    while True:
        try:
            outcome = (await store.apply([write])).outcomes[0]
            if outcome.accepted or reacquire is None or not await _has_reacquired(store, run, token, reacquire):
                break
            token = run.token
            write = Write(run.job_id, plan_checkpoint(new_operation_id(), token, text, report), answer=False)
            continue
        except (StoreUnavailableError, OutcomeUnknownError) as error:
            if run._stop_reasons:
                raise run._stop_reasons[0] from error
            if not until_stopped:
                raise
            if not warned:
                warned = True
                log.warning("job %s: checkpoint not written, trying again: %s", run.job_id, error)
        if store.blocking:
            time.sleep(RETRY_INTERVAL)  # noqa: ASYNC251 - a blocking store never suspends
        else:
            await asyncio.sleep(RETRY_INTERVAL)
    if not outcome.accepted:
        run.stop(stop_reason(outcome.job, run.token, "stopping" if outcome.job is None else "lost"))
        raise run._stop_reasons[0]


async def _has_reacquired(store: Store, run: RunProtocol, token: str, reacquire: ReacquireLease) -> bool:
    """Return whether a run whose token was rejected has a new lease."""
    if run._stop_reasons:
        return False
    _, (state,) = await store.heartbeat([], [(run.job_id, token)], None)
    return state == "lost" and reacquire(token)
