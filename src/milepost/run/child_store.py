"""Reads and writes of the store for the children of a run, in the process that has the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.placement import after_groups
from milepost.core.serialization import from_json, to_json
from milepost.core.transitions import plan_create, plan_retry_child
from milepost.run.crash_report import masked, secret_values_of
from milepost.run.heartbeat_state import stop_refused
from milepost.run.outages import through_outages
from milepost.run.transaction import refuse_open_transaction
from milepost.stores.cycles import CycleSearch
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Position, Select, Store, Write
from milepost.stores.query import position
from milepost.stores.refused_groups import group_error

if TYPE_CHECKING:
    from milepost.run.run import Run

PAGE = 500
_LIMIT = 64 * 1024 * 1024
_COMPARED = ("type", "params")


async def answer_children(store: Store, run: Run, request: str, *, until_stopped: bool) -> str:
    """Do what a run asks for its children, and return the answer; both are JSON.

    With `until_stopped` an outage is retried until the run is stopped. Raises the RunStop of a run that has lost its lease.
    """
    asked: dict[str, Any] = from_json(request)
    answer = await through_outages(store, run, lambda: _answer(store, run, asked), until_stopped=until_stopped)
    return to_json(answer, "children", _LIMIT)


async def _answer(store: Store, run: Run, asked: Mapping[str, Any]) -> Any:
    own = (":parent_id", run.job_id)
    if run._is_finishing or "counts" in asked:
        await refuse_open_transaction(store, run, "join" if "counts" in asked else "submit_child")
    if "make" in asked:
        return await _make(store, run, asked["make"])
    if "counts" in asked or "open" in asked:
        return (await store.member_counts([f"children:{run.job_id}"]))[0]
    if "join" in asked:
        return await _circle(store, run)
    if "pending" in asked:
        return bool(await store.select(Select(labels=(own,), statuses=("pending",)), 1))
    if "get" in asked:
        job = await store.get(asked["get"])
        return dict(job.record) if job is not None else None
    start = asked["existing"] if "existing" in asked else asked["page"]
    after = Position(*start) if start is not None else None
    jobs = await store.select(Select(labels=(own,), statuses=tuple(asked.get("statuses", ()))), PAGE, after)
    following = position(jobs[-1]) if len(jobs) == PAGE else None
    if "existing" in asked:
        return {job.job_id: content(job.record) for job in jobs if not _is_to_retry(job, asked)}, following
    return [[job.job_id, dict(job.record)] for job in jobs], following


def content(fields: Mapping[str, str]) -> str:
    """Return a digest of what must not change of a child."""
    text = "\0".join(fields.get(name, "") for name in _COMPARED)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


async def _make(
    store: Store, run: Run, children: Sequence[tuple[str, dict[str, str]]]
) -> list[str | None] | dict[str, str]:
    """Make children that do not exist, and retry those that failed in an earlier attempt of the parent.

    Return for each what is wrong, or None. Repeating it makes nothing twice, since the ids are given. If one of them would
    wait for itself, make none, and return the problem by field; also if one joins or follows a group that is closed or unknown.
    """
    siblings, search = {f"job:{job_id}" for job_id, _ in children}, CycleSearch(store)
    for _, fields in children:
        if not siblings.issuperset(after_groups(fields["labels"])):
            try:
                await search.refuse(fields)
            except InvalidInputError as error:
                return _refused(fields, error)
    lease = (run.job_id, run.token)
    writes = [
        Write(job_id, plan_create(fields, new_operation_id(), run=lease), answer=False) for job_id, fields in children
    ]
    outcomes = (await store.apply(writes)).outcomes
    problems: list[str | None] = []
    refused: dict[str, str] = {}
    again: list[Write] = []
    for (job_id, fields), outcome in zip(children, outcomes, strict=True):
        problem = None
        if not outcome.accepted and outcome.job is not None:
            problem = _difference(run, fields, outcome.job)
        elif not outcome.accepted:
            refused = refused or await _reason(store, run, job_id, fields)
        problems.append(problem)
        if problem is None and _is_to_retry(outcome.job, fields):
            plan = plan_retry_child(new_operation_id(), run=lease, generation=fields["parent_attempt"])
            again.append(Write(job_id, plan, answer=False))
    if again:
        await store.apply(again)
    return refused or problems


def _is_to_retry(job: Job | None, fields: Mapping[str, str]) -> bool:
    return (
        job is not None
        and job.status.value in ("failed", "cancelled")
        and job.record.get("parent_attempt") != fields["parent_attempt"]
    )


def _secrets(fields: Mapping[str, str]) -> tuple[str, ...]:
    return secret_values_of(fields.get("params", "{}"), fields["secrets"]) if "secrets" in fields else ()


async def _reason(store: Store, run: Run, job_id: str, fields: Mapping[str, str]) -> dict[str, str]:
    """Return why a child was not made, by field. Raises the RunStop of a lost run."""
    (state,) = await store.renew([(run.job_id, run.token)], None)
    if state != "live":
        raise stop_refused(run, await store.get(run.job_id), state)
    error = await group_error(store, job_id, fields)
    unknown = InvalidInputError("after", "a group that it follows was unknown; submit its members first")
    return _refused(fields, error or unknown)


async def _circle(store: Store, run: Run) -> str:
    """Return why the run would wait for ever for its children, empty if it would not."""
    try:
        await CycleSearch(store).refuse_join(run._job)
    except InvalidInputError as error:
        return error.problem
    return ""


def _refused(fields: Mapping[str, str], error: InvalidInputError) -> dict[str, str]:
    return {error.field: f"child {fields['child_key']!r:.80}: {error.problem}"}


def _difference(run: Run, fields: Mapping[str, str], job: Job) -> str | None:
    """Return how an existing child differs from the one that was to be made."""
    for name in _COMPARED:
        if (before := job.record.get(name, "")) != fields[name]:
            hidden = (*run._secret_values, *_secrets(job.record), *_secrets(fields))
            hidden = tuple(sorted(hidden, key=len, reverse=True))
            return f"was made with {masked(before, hidden):.200}, now with {masked(fields[name], hidden):.200}"
    return None
