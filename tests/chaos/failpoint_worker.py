"""A worker process of a soak with failpoints, which are files: python -m tests.chaos.failpoint_worker.

CHAOS_FAILPOINTS is a folder. A process that removes a file in it does what its name says, once, so that each of them
happens exactly once whichever worker meets it: `lost-*` loses a reply after the commit; `commit-*` ends the process by
SIGKILL inside a transaction, just before its COMMIT; `committed-*` just after it. CHAOS_REMOVED names guards that this
process does without, such as "complete:token": the negative controls. CHAOS_DEAF keeps from a run that its lease was lost,
so that a zombie surely sends what it writes, and only the store's guards are in its way.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from milepost.core.errors import OutcomeUnknownError, RunStop
from milepost.core.transitions.change import Change, TransitionType
from milepost.stores.protocol import Claim, Write

_connect = sqlite3.connect


def take(kind: str) -> bool:
    """Take one failpoint of a kind, if there is one."""
    folder = os.environ.get("CHAOS_FAILPOINTS")
    if not folder:
        return False
    for name in os.listdir(folder):
        if name.startswith(f"{kind}-"):
            try:
                os.rename(Path(folder) / name, Path(folder) / f"taken-{name}")
            except FileNotFoundError:
                continue
            return True
    return False


class Killable(sqlite3.Connection):
    """A connection whose process may die in a commit."""

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:  # type: ignore[override]
        if sql != "COMMIT":
            return super().execute(sql, values)
        if take("commit"):
            os.kill(os.getpid(), signal.SIGKILL)
        done = super().execute(sql)
        if take("committed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def kill_in_commits() -> None:
    """Let SQLite's commits of this process be failpoints."""

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        return _connect(*args, factory=Killable, **options)

    sqlite3.connect = connect  # type: ignore[assignment]


def lose_replies(kind: type[Any]) -> None:
    """Let the answers of a store's writes get lost after they were applied."""

    def losing(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(self: Any, writes: Any, *args: Any, **options: Any) -> Any:
            answer = await method(self, writes, *args, **options)
            if writes and take("lost"):
                raise OutcomeUnknownError("the reply was lost, by a failpoint")
            return answer

        return call

    kind.apply = losing(kind.apply)
    kind.heartbeat = losing(kind.heartbeat)


def without_guards(kind: type[Any], removed: str) -> None:
    """Take guards away: "complete:token progress:token" takes every "token" guard from the transitions of these names."""
    pairs = {tuple(pair.split(":")) for pair in removed.split()}

    @cache
    def unsafe(transition: TransitionType) -> TransitionType:
        branches = tuple(
            replace(branch, guards=tuple(g for g in branch.guards if (transition.name, g[0]) not in pairs))
            for branch in transition.branches
        )
        return replace(transition, branches=branches)

    def bare(change: Change) -> Change:
        return change._replace(transition=unsafe(change.transition))

    apply, heartbeat = kind.apply, kind.heartbeat

    def stripped(writes: Any) -> list[Write]:
        return [write._replace(change=bare(write.change)) for write in writes]

    async def unguarded_apply(self: Any, writes: Any, claim: Claim | None = None) -> Any:
        if claim is not None:
            claim = replace(claim, starts=tuple(bare(start) for start in claim.starts))
        return await apply(self, stripped(writes), claim)

    async def unguarded_beat(self: Any, writes: Any, leases: Any, micros: Any) -> Any:
        return await heartbeat(self, stripped(writes), leases, micros)

    kind.apply, kind.heartbeat = unguarded_apply, unguarded_beat


def hide_lost_leases() -> None:
    """Hide lost leases from this process; it still learns which of its writes the store refuses."""
    from milepost.run.run import Run
    from milepost.worker.store_requests import Outbox

    original = Run.stop

    def stop(self: Run, reason: RunStop) -> None:
        """Stop, unless the reason comes from the heartbeat or the lease watch."""
        if threading.current_thread().name not in ("milepost-heartbeat", "milepost-lease-watch"):
            original(self, reason)

    async def renew(self: Outbox, store: Any, micros: int) -> None:
        """Keep the result of a run whose lease was lost among what is sent."""

    Run.stop = stop  # type: ignore[method-assign]
    Outbox.renew = renew  # type: ignore[method-assign]


def main() -> int:
    """Serve until a signal."""
    logging.basicConfig(level=os.environ.get("CHAOS_LOG", "ERROR"))
    kill_in_commits()
    from milepost.worker import run_worker
    from tests.chaos.worker_app import jobs

    kind = type(jobs.store)
    lose_replies(kind)
    if removed := os.environ.get("CHAOS_REMOVED"):
        without_guards(kind, removed)
    if os.environ.get("CHAOS_DEAF"):
        hide_lost_leases()
    return run_worker(jobs, concurrency=int(os.environ.get("CHAOS_CONCURRENCY", "4")))


if __name__ == "__main__":
    raise SystemExit(main())
