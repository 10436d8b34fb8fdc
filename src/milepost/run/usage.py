"""`run.add_usage`: what a run spends, within the budget of its job.

The heartbeat reports the sum of this run and of the earlier ones. Only a run under its lease may write it, so a repeated
request counts nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from milepost.core.errors import BudgetExceededError, InvalidInputError
from milepost.core.ledger import MAX_SUM
from milepost.core.usage import MAX_NAMES, MILLION, decode_millionths, encode_usage, exceeded, millionths

if TYPE_CHECKING:
    from milepost.run.run import Run

REMEDY = "submit a job with a larger budget"
_making = threading.Lock()


class Usage:
    """The usage of a job as its current run knows it, in millionths. Thread-safe."""

    def __init__(self, record: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._spent = decode_millionths(record.get("usage"))

    def add(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Add amounts and return the sums. Raises InvalidInputError for too many names, or too large a sum."""
        with self._lock:
            spent = {**self._spent, **{name: self._spent.get(name, 0) + n for name, n in amounts.items()}}
            if len(spent) > MAX_NAMES:
                raise InvalidInputError("add_usage", f"{len(spent)} names, the limit of a job is {MAX_NAMES}")
            if max(spent.values()) > MAX_SUM:
                raise InvalidInputError("add_usage", f"the sum of a job is limited to {MAX_SUM // MILLION:.0e}")
            self._spent = spent
        return spent

    def text(self) -> str:
        """Return the stored form."""
        return encode_usage(self._spent)


class UsageMixin:
    """Adds `add_usage` to a Run."""

    def add_usage(self, **amounts: float) -> None:
        """Add what the run has spent to the usage of its job: ``run.add_usage(tokens=812, usd=0.004)``.

        Amounts are numbers from 0, kept as whole millionths, under up to 16 names. The sum of all attempts and segments is
        `usage` of the job. It never waits: the heartbeat writes the sum, so a killed process loses what it added since then.

        If the job has a `budget` (``handler.options(budget={"usd": 5})``) and has spent more of a name, it raises
        BudgetExceededError, which ends the job as failed, without a retry. Code that catches it cannot continue: every later
        cancellation point raises it again, and the job fails whatever the code returns. What this call adds is counted, so
        the job may exceed its budget by it. Raises InvalidInputError. A cancellation point, which counts first.
        """
        run = cast("Run", self)
        run._refuse_fork("add_usage")
        spent = self._counted().add(millionths(amounts, "add_usage"))  # even if the run was stopped: it was spent
        if run._over_budget is None and (over := exceeded(spent, run._budget_of_usage)) is not None:
            run._over_budget = BudgetExceededError(f"budget: {over}; {REMEDY}")
        run._check_cancel()

    def _counted(self) -> Usage:
        run = cast("Run", self)
        if run._usage is None:
            with _making:
                if run._usage is None:
                    run._usage = Usage(run._job.record)
        return run._usage

    @property
    def _budget_of_usage(self) -> dict[str, int]:
        return decode_millionths(cast("Run", self)._job.record.get("usage_budget"))

    def _refuse_spent_budget(self) -> None:
        """Raise BudgetExceededError if earlier runs have spent the budget of the job."""
        run = cast("Run", self)
        spent = decode_millionths(run._job.record.get("usage"))
        over = exceeded(spent, self._budget_of_usage, at_limit="segments" not in run._job.record)
        if over is not None:
            raise BudgetExceededError(f"budget: {over} by earlier runs; {REMEDY}")
