"""Budgets of trees: what a job and its descendants have spent together, compared with the budget of the job."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from milepost.core.errors import BudgetExceededError
from milepost.core.ledger import Book, tree_books
from milepost.core.serialization import US
from milepost.core.usage import decode_millionths, exceeded
from milepost.run.usage import ASKS, REMEDY, BudgetSpent
from milepost.stores.protocol import Store

if TYPE_CHECKING:
    from milepost.run.run import Run


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


async def refusal_at_start(store: Store, run: Run) -> BudgetExceededError | BudgetSpent | None:
    """Return what keeps a run from starting because a budget has no rest, or None."""
    job_id, record = run.job_id, run._job.record
    above = [holder for holder in budget_holders(job_id, record) if holder != job_id]
    spent = await spent_budgets(store, above, at_limit=True) if above else {}
    budget, is_first = decode_millionths(record.get("usage_budget")), "segments" not in record
    is_fresh = is_first and record.get("attempt") == "1"
    if not spent and not is_fresh and exceeded(decode_millionths(record.get("usage")), budget) is None:
        spent = await spent_budgets(store, [job_id], at_limit=is_first) if budget else {}
    return next((_stop_of(run, holder, overrun) for holder, overrun in spent.items()), None)
