"""Create jobs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from milepost.core.placement import AFTER, groups_joined, member_groups
from milepost.core.transitions.change import Change, Const, Field, Guard, Operation, Param
from milepost.core.transitions.table import (
    ACTIVE,
    CANCELLED,
    FAILED,
    NONE,
    PENDING,
    RUNNING,
    UNSUCCESSFUL,
    TransitionTemplate,
    branch,
    template,
)

FROM_NOW = {"delay": "not_before", "expires_in": "not_after"}
"""The options that are a time after the creation by the store's clock, and the fields that they set."""


_OF_SCHEDULE = ("schedule_key", "schedule_before", "schedule_after")
_TRAILING = ("nonce", "lease", "again", "run", "run_token", "member")
"""The values of a creation after those of the fields."""
_UNUSED = (None,) * len(_TRAILING)
CYCLE_CHECK = "60000000"
"""Microseconds after which a sweep looks for the first time whether a job waits for itself."""
LEASED: Guard = ("leased", Param("run"), Param("run_token"))
"""The run that makes the change has its lease."""


@cache
def _creates(
    names: tuple[str, ...],
    target: str,
    is_handed: bool = False,
    waits: bool = False,
    joins: bool = False,
    is_fired: bool = False,
) -> TransitionTemplate:
    sets: tuple[Operation, ...] = tuple(
        ("stamp", FROM_NOW[name], Param(name)) if name in FROM_NOW else ("set", name, Param(name)) for name in names
    )
    running = target == RUNNING
    start: tuple[Operation, ...] = (("take", Param("nonce"), Param("lease")), ("once", "started")) if running else ()
    guards: tuple[Guard, ...] = (("free",),) if running else ()
    if "dispatch_after" in names:
        sets += (
            ("stamp", "stale", Param("again") if is_handed else Field("dispatch_after")),
            ("set", "stale", Field("not_before")),
        )
    if waits:
        guards, sets = (("known", Param("labels")),), (*sets, ("hold", UNSUCCESSFUL))
    if "child_key" in names:
        guards = (LEASED, *guards)
    if joins:
        guards = (("joinable", Param("labels"), Param("member"), Param("run_token")), *guards)
    if is_fired:
        guards = (("value", Param("schedule_key"), Param("schedule_before")), *guards)
        sets = (*sets, ("put", Param("schedule_key"), Param("schedule_after")))
    # track() resumes an ended job by its key, unless it has completed; see plan_resume.
    holds = (*ACTIVE, FAILED, CANCELLED) if running else ACTIVE
    return template(
        "create",
        (*names, *_TRAILING, *(_OF_SCHEDULE if is_fired else ())),
        branch(
            (NONE,),
            target,
            guards=(("unique", " ".join(holds)), *guards),
            ops=(*sets, ("set", "progress", Const("0")), ("stamp", "created"), *start),
            event="created" if target == PENDING else "running",
            emit=("worker", "attempt"),
        ),
        retention="callers",
    )


def plan_create(
    fields: Mapping[str, str],
    operation_id: str,
    again: int | None = None,
    *,
    run: tuple[str, str] | None = None,
    member: bool = False,
) -> Change:
    """Create a pending record with `fields`; refused unless the id and the unique key are free and the jobs of `after` exist.

    It is held if one of these is open. It is also held, until `plan_release_held` cancels it, if one of them failed.
    A closed batch refuses members. `again`: the submitter is about to dispatch it to its task queue; another process may
    after this many microseconds. `run`: the id and the token of the run that makes it. A child (with `child_key`) is refused
    unless that has its lease. `member`: the run belongs to the groups of the record, and may join a closed batch.
    """
    labels = fields.get("labels", "")
    fields = _with_cycle_check(fields, labels)
    joins = ":group=" in labels and bool(groups_joined(labels))
    transition = _creates(tuple(fields), PENDING, again is not None, AFTER in labels, joins).transition
    run_id, run_token = run or (None, None)
    values: tuple[str | None, ...] = (*fields.values(), None, None, None if again is None else str(again))
    values += (run_id, run_token, run_id if member else None)
    return Change(transition, values, operation_id, fields.get("unique_key"))


def plan_track(fields: Mapping[str, str], operation_id: str, *, nonce: str, lease: int) -> Change:
    """Create a running record with a lease of `lease` microseconds; refused while the id or key is draining."""
    transition = _creates(tuple(fields), RUNNING).transition
    return Change(
        transition, (*fields.values(), nonce, str(lease), *_UNUSED[2:]), operation_id, fields.get("unique_key")
    )


def plan_fire(fields: Mapping[str, str], operation_id: str, *, key: str, before: str, after: str) -> Change:
    """Create the pending job of one tick of a schedule, whose value in the key-value store becomes `after` in the same step.

    Refused as `plan_create` is, and unless the value of `key` is `before`: another process has fired this tick, or the
    schedule was changed, paused or removed.
    """
    labels = fields.get("labels", "")
    fields = _with_cycle_check(fields, labels)
    transition = _creates(
        tuple(fields), PENDING, waits=AFTER in labels, joins=bool(groups_joined(labels)), is_fired=True
    ).transition
    return Change(transition, (*fields.values(), *_UNUSED, key, before, after), operation_id, fields.get("unique_key"))


def _with_cycle_check(fields: Mapping[str, str], labels: str) -> Mapping[str, str]:
    """Return the fields with `cycle_check` if the record may be part of a cycle: each has a job that follows others and is a
    member of a group that others wait for."""
    return {**fields, "cycle_check": CYCLE_CHECK} if AFTER in labels and member_groups(fields) else fields
