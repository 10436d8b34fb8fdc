"""`run.add_usage`: what a run spends, within the budget of its job.

The heartbeat reports the sum of this run and of the earlier ones. Only a run under its lease may write it, so a repeated
request counts nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from milepost.core.errors import BudgetExceededError, InvalidInputError, JobSuspended
from milepost.core.ledger import MAX_SUM
from milepost.core.usage import MAX_NAMES, MILLION, decode_millionths, encode_usage, exact_millionths, exceeded
from milepost.run.repeated_work import warn_of_repeated_work
from milepost.run.steps import is_in_step, is_released

if TYPE_CHECKING:
    from milepost.run.run import Run

REMEDY = "submit a job with a larger budget"
ASKS = "ask"
"""The value of `on_budget` of a job that asks to raise its budget."""


class BudgetSpent(JobSuspended):
    """The run is to be suspended, since a budget is spent whose job, the `holder`, asks to raise it.

    `budget_question.ask_to_raise` tells what the run then waits for.
    """

    was_raised = False

    def __init__(self, holder: str) -> None:
        super().__init__(0)
        self.holder = holder


class Usage:
    """The usage of a job as its current run knows it, in millionths. Thread-safe."""

    def __init__(self, record: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._spent = decode_millionths(record.get("usage"))
        self._rests: dict[str, float] = {}
        """What was left when the amounts so far were rounded, by name; it goes into the next ones."""

    def add(self, amounts: Mapping[str, float]) -> dict[str, int]:
        """Add amounts and return the sums. Raises InvalidInputError for too many names, or too large a sum."""
        with self._lock:
            exact = {name: n + self._rests.get(name, 0) for name, n in amounts.items()}
            added = {name: round(n) for name, n in exact.items()}
            spent = {**self._spent, **{name: self._spent.get(name, 0) + n for name, n in added.items()}}
            if len(spent) > MAX_NAMES:
                raise InvalidInputError("add_usage", f"{len(spent)} names, the limit of a job is {MAX_NAMES}")
            if max(spent.values()) > MAX_SUM:
                raise InvalidInputError("add_usage", f"the sum of a job is limited to {MAX_SUM // MILLION:.0e}")
            self._spent = spent
            self._rests.update((name, n - added[name]) for name, n in exact.items())
        return spent

    def text(self) -> str:
        """Return the stored form."""
        return encode_usage(self._spent)


class UsageMixin:
    """Adds `add_usage` to a Run."""

    def add_usage(self, **amounts: float) -> None:
        """Add what the run has spent to the usage of its job: ``run.add_usage(tokens=812, usd=0.004)``.

        Amounts are numbers from 0, kept as whole millionths, under up to 16 names; what rounding leaves goes into the next
        amount. The sum of all attempts and segments is `usage` of the job. It never waits: the heartbeat writes the sum, so a
        killed process loses what it added since then.

        If the job has a `budget` (``handler.options(budget={"usd": 5})``) and has spent more of a name, it raises
        BudgetExceededError, which ends the job as failed, without a retry. Code that catches it cannot continue: every later
        cancellation point raises it again, and the job fails whatever the code returns. What this call adds is counted, so
        the job may exceed its budget by it. Raises InvalidInputError. A cancellation point, which counts first.

        With ``on_budget="ask"`` it raises JobSuspended instead: the job waits until a person raises the budget, and starts
        again from its kept steps. Inside of a function given to `step` it does not raise this, nor at a deploy: the step is
        finished and kept first.
        """
        run = cast("Run", self)
        run._refuse_fork("add_usage")
        spent = self._counted().add(exact_millionths(amounts, "add_usage"))  # even if the run was stopped: it was spent
        if run._over_budget is None and (over := exceeded(spent, run._budget_of_usage)) is not None:
            run._over_budget = (
                BudgetSpent(run.job_id) if self._asks else BudgetExceededError(f"budget: {over.text}; {REMEDY}")
            )
        if not (is_in_step() and is_released(run)):
            run._check_cancel()

    def _raise_over_budget(self) -> None:
        """Raise what a spent budget raises. One that is to be raised lets a step finish first, whose value is paid for."""
        run = cast("Run", self)
        if isinstance(run._over_budget, BudgetSpent):
            if is_in_step():
                return
            if not run._over_budget.was_raised:
                run._over_budget.was_raised = True
                warn_of_repeated_work(run, "the question for a larger budget")
        if run._over_budget is not None:
            raise run._over_budget

    def _counted(self) -> Usage:
        run = cast("Run", self)
        if run._usage is None:
            with run._making:
                if run._usage is None:
                    run._usage = Usage(run._job.record)
        return run._usage

    @property
    def _budget_of_usage(self) -> dict[str, int]:
        return decode_millionths(cast("Run", self)._job.record.get("usage_budget"))

    @property
    def _asks(self) -> bool:
        """Whether the run can be suspended until a person has raised the budget of its job."""
        run = cast("Run", self)
        return run._can_suspend and run._job.record.get("on_budget") == ASKS

    def _refuse_spent_budget(self) -> None:
        """Raise BudgetExceededError, or BudgetSpent, if earlier runs have spent the budget of the job."""
        run = cast("Run", self)
        spent = decode_millionths(run._job.record.get("usage"))
        over = exceeded(spent, self._budget_of_usage, at_limit="segments" not in run._job.record)
        if over is not None and self._asks:
            raise BudgetSpent(run.job_id)
        if over is not None:
            raise BudgetExceededError(f"budget: {over.text} by earlier runs; {REMEDY}")
