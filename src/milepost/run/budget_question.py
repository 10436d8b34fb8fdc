"""The question that a job asks once its budget is spent: by how much a person raises it.

The job that has the budget asks, whichever run of its tree has noticed. Its run waits for the answer; the run of a
descendant waits for the answer to the question of another job, and looks again after a while, since that job may end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from milepost.core.errors import BudgetExceededError, InvalidInputError, JobSuspended, StoreError
from milepost.core.job import Job
from milepost.core.ledger import tree_books
from milepost.core.placement import ANSWER
from milepost.core.serialization import from_micros, to_json
from milepost.core.transitions import plan_ask_from_below, plan_wake_below
from milepost.core.usage import MAX_AMOUNT, MILLION, decode_millionths, encode_usage, millionths, shown
from milepost.core.values import Question
from milepost.run.checkpoints import write_question
from milepost.run.heartbeat_state import stop_refused
from milepost.run.outages import through_outages
from milepost.run.questions import micros_of, questions_of, questions_text
from milepost.run.usage import Overrun, budget_error, overrun_of
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write

if TYPE_CHECKING:
    from milepost.run.run import Run

KEY = "budget-"
"""What the keys of these questions begin with; a number follows."""
LOOK_SOON = 2_000_000
LOOK_AGAIN = 120_000_000
"""After how many microseconds, at least and at most, the run of a descendant looks for an answer that has not woken it.

Between these it waits for as long as the question has been open: a new one may be answered just before the run is suspended.
"""
SLICE = 500

log = logging.getLogger("milepost.run")


async def ask_to_raise(store: Store, run: Run, holder: str, usage: str | None) -> JobSuspended | BudgetExceededError:
    """Ask for a larger budget of a job, unless it was asked before, and return how the run whose code has returned waits.

    `usage` is what the run knows of the usage of its job. Return the error of the run if the job has ended. An outage is
    retried until the run is stopped. Raises the RunStop of a run that may not write.
    """
    own = usage if holder == run.job_id else None
    found = None
    while found is None:
        found = await through_outages(store, run, lambda: _ask(store, run, holder, own), until_stopped=True)
    return found


async def _ask(store: Store, run: Run, holder: str, usage: str | None) -> JobSuspended | BudgetExceededError | None:
    """Do it once. Return None if the questions of the job have changed meanwhile."""
    job, is_own = await store.get(holder), holder == run.job_id
    if job is None and is_own:
        raise stop_refused(run, None, "stopping")
    overrun = await _overrun(store, job, usage) if job is not None else None
    now = await store.now()
    if job is None or overrun is None:
        return JobSuspended(now)
    if job.is_terminal:
        return budget_error(run.job_id, holder, overrun)
    kept = questions_of(job.record.get("questions"))
    question = _open_question(kept)
    is_new = question is None
    if question is None:
        number = next(n for n in range(1, len(kept) + 2) if f"{KEY}{n}" not in kept)
        question = _question(f"{KEY}{number}", overrun, job.record, now)
    values: dict[str, Any] = {
        "version": job.record.get("questions_version", ""),
        "questions": questions_text({**kept, question.key: question}),
        "data": to_json({"key": question.key, "prompt": question.prompt, "expires_at": None}, "key"),
    }
    if is_own:
        if is_new or job.record.get("asking") != question.key:
            values |= {"key": question.key, "expires": None}
            if not await write_question(store, run, values, until_stopped=True):
                return None
        return JobSuspended(asking=question.key)
    if is_new:
        plan = plan_ask_from_below(new_operation_id(), **values)
        outcome = (await store.apply([Write(holder, plan)])).outcomes[0]
        if outcome.wait:
            return JobSuspended(now + outcome.wait)
        if not outcome.accepted:
            return None
    wait = min(max(now - (micros_of(question.asked_at) or now), LOOK_SOON), LOOK_AGAIN)
    return JobSuspended(now + wait, _key_below(question.key, holder), is_asked_above=True)


def _open_question(kept: Mapping[str, Question]) -> Question | None:
    return next((one for one in kept.values() if one.budget is not None and one.state == "open"), None)


def _question(key: str, overrun: Overrun, record: Mapping[str, str], now: int) -> Question:
    budget = decode_millionths(record.get("usage_budget"))
    amount = {"type": "number", "minimum": 0, "maximum": MAX_AMOUNT}
    schema = {
        "type": "object",
        "properties": dict.fromkeys(budget, amount),
        "required": [overrun.name],
        "additionalProperties": False,
    }
    prompt = f"{overrun.text}. Add how much to the budget? 0 stops the job."
    return Question(key, prompt, schema, asked_at=from_micros(now).isoformat(), budget=shown(budget))


def _key_below(key: str, holder: str) -> str:
    """Return what descendants of a job wait for, in place of the key of their own question."""
    return f"{key} of job {holder}"


async def _overrun(store: Store, job: Job, usage: str | None = None, budget: str | None = None) -> Overrun | None:
    (book,) = await store.usage(tree_books([job.job_id]))
    record = job.record if budget is None else {**job.record, "usage_budget": budget}
    return overrun_of(record, book, at_limit=True, usage=usage)


def stops_job(amounts: Mapping[str, Any]) -> bool:
    """Return whether an answer adds nothing to the budget, which stops the job."""
    return not any(amounts.values())


async def raised_budget(store: Store, job: Job, amounts: Mapping[str, Any]) -> str:
    """Return the stored form of the budget of a job with the amounts of an answer. Raises InvalidInputError if it is spent, too."""
    budget = decode_millionths(job.record.get("usage_budget"))
    for name, amount in millionths(amounts, "value").items():
        budget[name] = budget.get(name, 0) + amount
        if budget[name] > MAX_AMOUNT * MILLION:
            raise InvalidInputError(name, f"{amounts[name]} is too much; a budget is limited to {MAX_AMOUNT:.0e}")
    text = encode_usage(budget)
    overrun = await _overrun(store, job, budget=text)
    if overrun is not None:
        raise InvalidInputError(overrun.name, f"is too little: still {overrun.text}; add more, or 0 to stop the job")
    return text


async def wake_below(store: Store, holder: str, key: str, by: str | None) -> None:
    """Wake the descendants of a job that wait for the answer to its question. If the store fails they look by themselves."""
    waits = _key_below(key, holder)
    data = to_json({"key": waits, "by": by}, "key")
    try:
        while found := await store.held_by(ANSWER + waits, SLICE):
            writes = [Write(one, plan_wake_below(new_operation_id(), waits, data=data), answer=False) for one in found]
            outcomes = (await store.apply(writes)).outcomes
            if len(found) < SLICE or not any(outcome.accepted for outcome in outcomes):
                return
    except StoreError as error:
        log.warning("job %s: descendants not woken, each looks by itself: %s", holder, error)
