"""`run.checkpoint` and `run.finish`: record where the next attempt continues, and the result, also in a transaction of the code."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import CHECKPOINT_BYTES, to_json
from milepost.run.checkpoints import warn_of_changed_types
from milepost.run.cursor import current_loop
from milepost.run.loops import check_checkpoint

if TYPE_CHECKING:
    from milepost.run.run import Run

R = TypeVar("R")


class CheckpointMixin:
    """Adds `checkpoint`, `acheckpoint` and `finish` to a Run."""

    def checkpoint(self, value: Any, *, using: object = None) -> None:
        """Record where the next attempt can continue (JSON, up to 256 KiB). A cancellation point.

        It returns when the store has the value. Raises InvalidInputError for a value that is not JSON, and a RunStop if
        the run may not write any more. During an outage of the store, a handler waits for as long as its lease holds; a
        tracked block gets StoreUnavailableError.

        `using` is an open transaction of the code, as in `Jobs.using`, in the database of a PostgreSQL store: the checkpoint
        exists if and only if it commits, and it commits only under the lease of this run. Only handlers of workers have it.
        Until the transaction has ended, `checkpoint` without `using` and `step` raise InvalidInputError.
        """
        run = cast("Run", self)
        text = self._checkpoint_text(value)
        if using is None:
            run._checkpoint_writer.checkpoint(run, text)
        else:
            self._refuse_using("checkpoint")
            run._checkpoint_writer.checkpoint_within(run, text, using)
        run._checkpoint_at = datetime.now(UTC).isoformat()
        run._check_cancel()

    def acheckpoint(self, value: Any, *, using: object = None) -> Coroutine[Any, Any, None]:
        """Record a checkpoint from code in an event loop. See `checkpoint`; `using` is an async transaction."""
        return cast("Run", self)._awaited("acheckpoint", self._acheckpoint(value, using))

    async def _acheckpoint(self, value: Any, using: object) -> None:
        run = cast("Run", self)
        text = self._checkpoint_text(value)
        if using is None:
            await run._checkpoint_writer.acheckpoint(run, text)
        else:
            self._refuse_using("acheckpoint")
            await run._checkpoint_writer.acheckpoint_within(run, text, using)
        run._checkpoint_at = datetime.now(UTC).isoformat()
        run._check_cancel()

    def finish(self, result: R, *, using: object) -> R:
        """Complete the job in an open transaction of the code, and return the result: ``return run.finish(result, using=db)``.

        The job is completed if and only if that transaction commits, and it commits only under the lease of this run: a
        worker that has lost the lease cannot commit. `using` is as in `checkpoint`, `result` as the handler would return it.
        Return after the commit. If the transaction is rolled back, the run fails, and is retried as after any error. A
        cancel or delete waits for the transaction, and raises LeaseHeldError after 2 s. In an `AsyncRun`, await it.

        Raises InvalidInputError for a result that is not JSON, and a RunStop if the run may not write any more.
        """
        run = cast("Run", self)
        self._refuse_using("finish")
        if run._children is not None:
            run._children.finish()  # a completed run makes no more
        run._checkpoint_writer.finish_within(run, result, using)
        return result

    def _refuse_using(self, name: str) -> None:
        run = cast("Run", self)
        run._refuse_fork(name)
        if run._job.run_by != "worker":
            raise InvalidInputError(
                "using", f"{name}(using=...) is for handlers of workers; call it without using here"
            )

    def _checkpoint_text(self, value: Any) -> str:
        run = cast("Run", self)
        run._refuse_fork("checkpoint")
        check_checkpoint(run)
        text = to_json(value, "checkpoint", CHECKPOINT_BYTES)
        warn_of_changed_types(value)
        in_loop = current_loop(run._loops.places) is not None
        run._loops.checkpoint_in_loop = in_loop and run._loops.checkpoint_in_loop is not False
        return text
