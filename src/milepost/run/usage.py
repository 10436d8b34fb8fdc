"""`run.add_usage`: what a run spends, within the budgets of its job and of the trees of jobs that it belongs to.

The heartbeat reports the sum of this run and of the earlier ones. Only a run under its lease may write it, so a repeated
request counts nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from milepost.core.errors import BudgetExceededError, InvalidInputError, JobSuspended
from milepost.core.ledger import MAX_SUM, Book, tree_books
from milepost.core.serialization import US
from milepost.core.usage import MAX_NAMES, MILLION, decode_millionths, encode_usage, exact_millionths, exceeded
from milepost.run.repeated_work import warn_of_repeated_work
from milepost.run.steps import is_in_step, is_released
from milepost.stores.protocol import Store

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
        """Raise BudgetExceededError, or BudgetSpent, if earlier runs have exceeded the budget of the job.

        One without a rest is not exceeded: the job may have nothing left to do but what costs nothing.
        """
        run = cast("Run", self)
        spent = decode_millionths(run._job.record.get("usage"))
        over = exceeded(spent, self._budget_of_usage)
        if over is not None and self._asks:
            raise BudgetSpent(run.job_id)
        if over is not None:
            raise BudgetExceededError(f"budget: {over.text} by earlier runs; {REMEDY}")


class Overrun(NamedTuple):
    """A budget that is spent."""

    text: str
    name: str
    """The name of the amount."""
    has_tree: bool
    """Whether descendants have spent a part of it."""
    asks: bool
    """Whether its job asks to raise it."""


def budget_holders(job_id: str, record: Mapping[str, str]) -> list[str]:
    """Return the ids of the jobs whose budgets cover a job: its own, and those above it."""
    own = [job_id] if "usage_budget" in record else []
    return [*own, *filter(None, record.get("budgets_above", "").split(US))]


def overrun_of(record: Mapping[str, str], book: Book, *, at_limit: bool, usage: str | None = None) -> Overrun | None:
    """Return whether the budget of a job is exceeded, with what its descendants have spent; `at_limit`: or has no rest.

    `usage` is newer than that of the record.
    """
    spent = decode_millionths(record.get("usage"))
    spent.update((name, max(amount, spent.get(name, 0))) for name, amount in decode_millionths(usage).items())
    for (_, name), amount in book.items():
        spent[name] = spent.get(name, 0) + amount
    over = exceeded(spent, decode_millionths(record.get("usage_budget")), at_limit=at_limit)
    if over is None:
        return None
    tree = " with its descendants" if book else ""
    return Overrun(over.text + tree, over.name, bool(book), record.get("on_budget") == ASKS)


async def spent_budgets(
    store: Store, holders: Iterable[str], *, at_limit: bool = False, only_trees: Container[str] = ()
) -> dict[str, Overrun]:
    """Return the jobs whose budget is exceeded. `at_limit`: also those without a rest.

    A job of `only_trees` is left out, and its record not read, if its descendants have spent nothing.
    """
    ids = list(dict.fromkeys(holders))
    found = {}
    for job_id, book in zip(ids, await store.usage(tree_books(ids)), strict=True):
        job = await store.get(job_id) if book or job_id not in only_trees else None
        if job is not None and (overrun := overrun_of(job.record, book, at_limit=at_limit)) is not None:
            found[job_id] = overrun
    return found


def budget_error(job_id: str, holder: str, overrun: Overrun) -> BudgetExceededError:
    """Return the error of a run that the budget of a job stops."""
    whose = "" if holder == job_id else f" of job {holder}"
    return BudgetExceededError(f"budget{whose}: {overrun.text}; {REMEDY}")


def _stop_of(run: Run, holder: str, overrun: Overrun) -> BudgetExceededError | BudgetSpent:
    """Return what stops a run: its error, or a suspension until the budget is raised."""
    return BudgetSpent(holder) if overrun.asks and run._can_suspend else budget_error(run.job_id, holder, overrun)


async def stop_runs_over_budget(store: Store, runs: Iterable[Run]) -> None:
    """Let the next cancellation point of each run stop that a budget of its tree covers and that has spent it.

    What a job has spent without descendants is left to `run.usage`, here and at its start.
    """
    covered = [(run, holders) for run in runs if (holders := budget_holders(run.job_id, run._job.record))]
    if not covered:
        return
    above = {holder for run, holders in covered for holder in holders if holder != run.job_id}
    roots = {run.job_id for run, _ in covered} - above
    spent = await spent_budgets(store, (holder for _, holders in covered for holder in holders), only_trees=roots)
    for run, holders in covered:
        for holder in holders:
            overrun = spent.get(holder)
            if overrun is not None and (holder != run.job_id or overrun.has_tree) and run._over_budget is None:
                run._over_budget = _stop_of(run, holder, overrun)


async def blocking_budgets(
    store: Store, job_id: str, record: Mapping[str, str], *, own: bool = True
) -> dict[str, Overrun]:
    """Return the jobs whose budgets keep a run of a job from starting, because they are exceeded; `own`: also the job itself.

    A descendant that has spent nothing yet does not start either if a budget above it has no rest.
    """
    above = [holder for holder in budget_holders(job_id, record) if holder != job_id]
    has_spent = bool(decode_millionths(record.get("usage")))
    spent = await spent_budgets(store, above, at_limit=not has_spent) if above else {}
    if not spent and own and "usage_budget" in record:
        spent = await spent_budgets(store, [job_id])
    return spent


async def refusal_at_start(store: Store, run: Run) -> BudgetExceededError | BudgetSpent | None:
    """Return what keeps a run from starting because a budget is exceeded, or None."""
    record = run._job.record
    is_fresh = "segments" not in record and record.get("attempt") == "1"
    spent = await blocking_budgets(store, run.job_id, record, own=not is_fresh)
    return next((_stop_of(run, holder, overrun) for holder, overrun in spent.items()), None)
