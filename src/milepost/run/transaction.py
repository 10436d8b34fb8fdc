"""Checkpoints and results of a run that commit with a transaction of its code, and what follows when that has ended."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from milepost.core.errors import InvalidInputError, StoreError
from milepost.run.heartbeat_state import PendingReport, stop_refused
from milepost.run.job_result import job_result
from milepost.run.outcome import completed
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.run.run import Run

log = logging.getLogger("milepost.run")

POLL_INTERVAL = 0.2
WARN_SECONDS = 60.0


def within(store: Store, connection: object, *, locks: bool = False) -> Any:
    """Return the store that writes in a transaction of the caller. Raises InvalidInputError."""
    refuse_other_stores(store)
    return store.within(connection, locks=locks)  # type: ignore[attr-defined] # only PostgreSQL has it


async def awithin(store: Store, connection: object, *, locks: bool = False) -> Any:
    """Return the async store that writes in a transaction of the caller. Raises InvalidInputError."""
    refuse_other_stores(store)
    return await store.awithin(connection, locks=locks)  # type: ignore[attr-defined] # as above


def refuse_other_stores(store: Store) -> None:
    """Raise InvalidInputError for a store that cannot write in a transaction of the caller."""
    if not hasattr(store, "within"):
        raise InvalidInputError("using", f"needs a PostgreSQL store, and jobs are in {store.url}")


class RunTransaction:
    """The last transaction of a run's code in which it wrote a checkpoint or its result."""

    def __init__(self, number: str, result: Write | None = None) -> None:
        self.number = number
        self.result = result
        """The write that completes the run."""


async def write_checkpoint_within(store: Any, run: Run, text: str) -> None:
    """Write a checkpoint in a transaction. `store` is from `within`. Raises the RunStop of a run that may not write."""
    run.check()
    number = await store.put_checkpoint(run.job_id, run.token, text)
    if number is None:
        raise stop_refused(run, await store.get(run.job_id), "lost")
    run._transaction = RunTransaction(number)


async def finish_within(store: Any, run: Run, value: Any) -> None:
    """Complete the run in a transaction. `store` is from `within`. Raises as `write_checkpoint_within`."""
    run.check()
    result = job_result(value, run)
    if result.error is not None:
        raise InvalidInputError("result", result.error.removeprefix("result: "))
    run._is_finishing = True  # from here on the heartbeat writes no report, which would wait for the transaction
    try:
        output = run._output.writes(new_operation_id) if run._output is not None else []
        outcome = completed(run, PendingReport(output, run._report(), run._take_lines()), result)
        answers = (await store.apply(outcome.writes)).outcomes
        if not answers[-1].accepted:
            raise stop_refused(run, await store.get(run.job_id), "lost")
        run._transaction = RunTransaction(await store.transaction_id(), outcome.writes[-1])
        run._is_finishing = True  # the heartbeat may have found that an earlier transaction was rolled back
    except BaseException:
        run._is_finishing = False
        raise


async def refuse_open_transaction(store: Any, run: Run, what: str) -> None:
    """Raise InvalidInputError while a transaction with a checkpoint or the result of the run is open."""
    if run._transaction is not None and not await is_over(store, run):
        raise InvalidInputError(
            what,
            "a transaction with an earlier checkpoint or finish of this run is open; commit it or roll it back first",
        )


async def is_over(store: Any, run: Run) -> bool:
    """Return whether the transaction has ended. If it was rolled back with the result, the run continues as before."""
    transaction = run._transaction
    if transaction is None:
        return True
    status = await store.transaction_status(transaction.number)
    if status == "in progress":
        return False
    is_undone = transaction.result is None or status == "aborted"
    if not is_undone:  # unless the code went back to a savepoint of it
        job = await store.get(run.job_id)
        is_undone = job is not None and job.record.get("token") == run.token
    if is_undone and run._transaction is transaction:
        run._transaction, run._is_finishing = None, False
    return True


def wait_until_over(store: Any, run: Run, warning: str) -> None:
    """Block until the transaction of a run has ended; log a warning if that takes long."""
    warn_at = time.monotonic() + POLL_INTERVAL
    while True:
        try:
            if run_sync(is_over(store, run)):
                return
        except StoreError as failure:
            log.debug("job %s: its transaction cannot be looked at, trying again: %s", run.job_id, failure)
        if time.monotonic() >= warn_at:
            warn_at = time.monotonic() + WARN_SECONDS
            log.warning("job %s: %s", run.job_id, warning)
        time.sleep(POLL_INTERVAL)


def settle(store: Any, run: Run, error: BaseException | None) -> BaseException | None:
    """Wait until the transaction of a run whose code has returned, or raised `error`, has ended; return the run's error.

    It blocks, and is called where the code ran.
    """
    assert run._transaction is not None
    has_result = run._transaction.result is not None
    wait_until_over(store, run, "the code has ended and left its transaction open; waiting for the end of it")
    if not has_result:
        return error
    if run._transaction is None:
        return error or InvalidInputError(
            "finish", "its transaction was rolled back, so the run has no result; commit it before the handler returns"
        )
    if error is not None:
        log.warning("job %s: raised after its result was committed: %r", run.job_id, error)
    return None
