"""Writes checkpoints, kept steps and questions: the call returns only when the store has the value. It warns of types that JSON changes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from milepost.core.errors import (
    BudgetExceededError,
    InvalidInputError,
    JobSuspended,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from milepost.core.transitions import plan_ask, plan_checkpoint, plan_keep_step, plan_settle_question
from milepost.core.transitions.change import Change
from milepost.run import transaction
from milepost.run.child_store import answer_children
from milepost.run.heartbeat_state import stop_refused
from milepost.run.outages import pause, through_outages
from milepost.run.report import usage_text
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.run.heartbeat import Heartbeat
    from milepost.run.heartbeat_state import ReacquireLease
    from milepost.run.run import Run

log = logging.getLogger("milepost.run")

QUESTION_FIELDS = ("questions", "questions_version", "asking")

Parts = Sequence[tuple[str, str]]
"""Values to write beside the record, each with its key."""


class CheckpointWriter:
    """Writes the checkpoints and the kept steps of a run, and reads what earlier attempts kept. This one does neither."""

    def stop_if_expired(self, run: Run) -> None:
        """Stop a run whose lease may be over, before its code begins."""

    def checkpoint(self, run: Run, text: str) -> None:
        """Write a checkpoint and return when the store has it. Raises a RunStop if the run may not write any more."""

    async def acheckpoint(self, run: Run, text: str) -> None:
        """Write a checkpoint without blocking the event loop."""
        self.checkpoint(run, text)

    def keep_step(self, run: Run, steps: str, key: str, parts: Parts) -> None:
        """Write the parts, then the steps that name them, and return when the store has both. Raises as `checkpoint`.

        `key` names the new step, as in `plan_keep_step`.
        """

    def write_question(self, run: Run, values: Mapping[str, Any]) -> bool:
        """Write the values of `plan_ask`, or without `expires` those of `plan_settle_question`.

        Return False if the questions of the job have changed meanwhile. Raises as `checkpoint`.
        """
        return True

    def read_questions(self, run: Run) -> Mapping[str, Any]:
        """Return the fields of QUESTION_FIELDS in the current record. Raises as `checkpoint`."""
        return {}

    def ask_to_raise(self, run: Run, holder: str) -> JobSuspended | BudgetExceededError:
        """Ask for a larger budget of a job, as `budget_question.ask_to_raise`."""
        raise NotImplementedError

    def checkpoint_within(self, run: Run, text: str, using: object) -> None:
        """Write a checkpoint in a transaction of the caller. Raises as `checkpoint`."""
        raise InvalidInputError("using", "cannot be used here: this process has no connection to the store")

    async def acheckpoint_within(self, run: Run, text: str, using: object) -> None:
        """Write a checkpoint in an async transaction of the caller."""
        self.checkpoint_within(run, text, using)

    def finish_within(self, run: Run, result: Any, using: object) -> None:
        """Complete the run in a transaction of the caller. Raises as `checkpoint`."""
        self.checkpoint_within(run, "", using)

    async def afinish_within(self, run: Run, result: Any, using: object) -> None:
        """Complete the run in an async transaction of the caller."""
        self.checkpoint_within(run, "", using)

    def now(self, run: Run) -> int:
        """Return the store's clock, in microseconds since 1970. Raises as `checkpoint`."""
        return time.time_ns() // 1000

    def children(self, run: Run, request: str) -> str:
        """Do what a run asks for its children, as `child_store.answer_children`. Raises as `checkpoint`."""
        raise InvalidInputError("run.submit_child()", "needs a store; test handlers with children with jobs_under_test")

    def read(self, run: Run, key: str) -> str | None:
        """Return the part of kept results that has a key, or None if it does not exist."""
        return None

    async def aread(self, run: Run, key: str) -> str | None:
        """Return the part of kept results that has a key without blocking the event loop."""
        return self.read(run, key)


class StoreCheckpointWriter(CheckpointWriter):
    """Writes the checkpoints of a run of this process to its store."""

    def __init__(
        self, store: Store, heartbeat: Heartbeat, *, until_stopped: bool, reacquire: ReacquireLease | None = None
    ) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._until_stopped = until_stopped
        self._reacquire = reacquire

    def stop_if_expired(self, run: Run) -> None:
        self._heartbeat.stop_if_expired(run)

    def checkpoint(self, run: Run, text: str) -> None:
        run_sync(self._write(self._heartbeat.store, run, text))

    async def acheckpoint(self, run: Run, text: str) -> None:
        await self._write(self._store, run, text)

    async def _write(self, store: Store, run: Run, text: str) -> None:
        await write_checkpoint(
            store,
            self._heartbeat,
            run,
            text,
            run._report(),
            until_stopped=self._until_stopped,
            reacquire=self._reacquire,
        )

    def checkpoint_within(self, run: Run, text: str, using: object) -> None:
        store = transaction.within(self._heartbeat.store, using, locks=True)
        run_sync(transaction.write_checkpoint_within(store, run, text))

    async def acheckpoint_within(self, run: Run, text: str, using: object) -> None:
        store = await transaction.awithin(self._store, using, locks=True)
        await transaction.write_checkpoint_within(store, run, text)

    def finish_within(self, run: Run, result: Any, using: object) -> None:
        run_sync(transaction.finish_within(transaction.within(self._heartbeat.store, using, locks=True), run, result))

    async def afinish_within(self, run: Run, result: Any, using: object) -> None:
        store = await transaction.awithin(self._store, using, locks=True)
        await transaction.finish_within(store, run, result)

    def keep_step(self, run: Run, steps: str, key: str, parts: Parts) -> None:
        run_sync(
            write_step(
                self._heartbeat.store,
                self._heartbeat,
                run,
                steps,
                key,
                parts,
                usage=usage_text(run),
                until_stopped=self._until_stopped,
                reacquire=self._reacquire,
            )
        )

    def write_question(self, run: Run, values: Mapping[str, Any]) -> bool:
        return run_sync(write_question(self._heartbeat.store, run, values, until_stopped=self._until_stopped))

    def read_questions(self, run: Run) -> Mapping[str, Any]:
        return run_sync(read_questions(self._heartbeat.store, run, until_stopped=self._until_stopped))

    def ask_to_raise(self, run: Run, holder: str) -> JobSuspended | BudgetExceededError:
        from milepost.run.budget_question import ask_to_raise  # it imports this module

        return run_sync(ask_to_raise(self._heartbeat.store, run, holder, usage_text(run)))

    def now(self, run: Run) -> int:
        return run_sync(read_clock(self._heartbeat.store, run, until_stopped=self._until_stopped))

    def children(self, run: Run, request: str) -> str:
        return run_sync(answer_children(self._heartbeat.store, run, request, until_stopped=self._until_stopped))

    def read(self, run: Run, key: str) -> str | None:
        item = run_sync(self._heartbeat.store.kv_get(key))
        return item.value if item is not None else None

    async def aread(self, run: Run, key: str) -> str | None:
        item = await self._store.kv_get(key)
        return item.value if item is not None else None


async def write_checkpoint(
    store: Store,
    heartbeat: Heartbeat,
    run: Run,
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
    with _in_order(heartbeat, run, report) as before:
        await _write(
            store, run, "checkpoint", lambda operation_id: plan_checkpoint(operation_id, run.token, text, report),
            until_stopped=until_stopped, reacquire=reacquire, before=before,
        )  # fmt: skip


async def write_step(
    store: Store,
    heartbeat: Heartbeat,
    run: Run,
    steps: str,
    key: str,
    parts: Parts,
    *,
    usage: str | None,
    until_stopped: bool,
    reacquire: ReacquireLease | None = None,
) -> None:
    """Write the parts, then the steps that name them, with the usage, so that a kill after it does not lose what the value cost.

    The other parameters, and what is raised, are as in `write_checkpoint`.
    """
    with _in_order(heartbeat, run, ("usage",)) as before:
        await _write(
            store, run, "step", lambda operation_id: plan_keep_step(operation_id, run.token, steps, key, usage),
            until_stopped=until_stopped, parts=parts, reacquire=reacquire, before=before,
        )  # fmt: skip
    run._kept_steps = steps


@contextlib.contextmanager
def _in_order(heartbeat: Heartbeat, run: Run, names: Iterable[str]) -> Iterator[list[Write]]:
    """Order a write that has these fields of the report among the reports; yield the writes to repeat before it.

    A report without a reply could otherwise arrive after it, and replace newer values. Repeated, it is applied at once, and
    has no effect later.
    """
    try:
        yield heartbeat.unanswered(run)
    finally:
        heartbeat.forget(run, names)


async def write_question(store: Store, run: Run, values: Mapping[str, Any], *, until_stopped: bool) -> bool:
    """Write a question. The parameters, the result and what is raised are as in `CheckpointWriter.write_question`."""
    plan = plan_ask if "expires" in values else plan_settle_question
    return await _write(store, run, "question", lambda one: plan(one, run.token, **values), until_stopped=until_stopped)


async def read_questions(store: Store, run: Run, *, until_stopped: bool) -> dict[str, str | None]:
    """Return the fields of QUESTION_FIELDS in the current record. `until_stopped` as in `write_checkpoint`."""
    job = await through_outages(store, run, lambda: store.get(run.job_id), until_stopped=until_stopped)
    if job is None:
        raise stop_refused(run, None, "stopping")
    return {name: job.record.get(name) for name in QUESTION_FIELDS}


async def _write(
    store: Store, run: Run, what: str, plan: Callable[[str], Change], *, until_stopped: bool, parts: Parts = (),
    reacquire: ReacquireLease | None = None, before: Sequence[Write] = (),
) -> bool:  # fmt: skip
    """Write a change of a run after the writes `before`. Return False if it was refused though the run has its lease. Raises its RunStop."""
    await transaction.refuse_open_transaction(store, run, what)
    token = run.token
    write = Write(run.job_id, plan(new_operation_id()), answer=False)
    unwritten = list(parts)
    warned = False
    while True:
        try:
            while unwritten:
                await store.kv_put(*unwritten[-1])
                unwritten.pop()
            outcome = (await store.apply([*before, write])).outcomes[-1]
            if outcome.accepted or reacquire is None or not await _has_reacquired(store, run, token, reacquire):
                break
            token = run.token
            write = Write(run.job_id, plan(new_operation_id()), answer=False)
            continue
        except (StoreUnavailableError, OutcomeUnknownError) as error:
            if not until_stopped:
                raise
            if not warned:
                warned = True
                log.warning("job %s: %s not written, trying again: %s", run.job_id, what, error)
            await pause(store, run, error)
    if not outcome.accepted:
        if outcome.job is not None and outcome.job.record.get("token") == run.token:
            return False
        if outcome.job is None:  # the job was deleted, with its parts, before these were written
            for key, _ in parts:
                await store.kv_delete(key)
        raise stop_refused(run, outcome.job, "stopping" if outcome.job is None else "lost")
    return True


async def read_clock(store: Store, run: Run, *, until_stopped: bool) -> int:
    """Return the store's clock. `until_stopped` as in `write_checkpoint`."""
    return await through_outages(store, run, store.now, until_stopped=until_stopped)


async def _has_reacquired(store: Store, run: Run, token: str, reacquire: ReacquireLease) -> bool:
    """Return whether a run whose token was rejected has a new lease."""
    if run._stop_reasons:
        return False
    _, (state,) = await store.heartbeat([], [(run.job_id, token)], None)
    return state == "lost" and reacquire(token)


_warned: set[str] = set()
_SAME = (str, int, float, bool, type(None), list, dict)


def warn_of_changed_types(value: Any) -> None:
    """Warn once per process and type about a value whose type the next attempt will not get."""
    kind = type(value)
    if kind not in _SAME:
        is_list = isinstance(value, set | frozenset | tuple)
        _warn(kind.__name__, "a list" if is_list else "plain JSON")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                _warn(f"{type(key).__name__} (as a key)", "a str")
            warn_of_changed_types(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            warn_of_changed_types(inner)


def _warn(kind: str, back: str) -> None:
    if kind not in _warned:
        _warned.add(kind)
        log.warning("checkpoint contains a %s, which is restored as %s; convert it before and after", kind, back)
