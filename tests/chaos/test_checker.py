"""Negative controls of the checker: for each invariant, a history that violates it and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.stores.protocol import Select
from tests.chaos.checker import CHECKS, check
from tests.chaos.checker_runs import RUN_CHECKS
from tests.chaos.history import History, Index
from tests.chaos.ledger import Line

T = 1_700_000_000_000_000
STATUSES = {"created": "pending", "running": "running", "retrying": "pending", "released": "pending"}


def event(version: int, kind: str, fence: int = 0, *, at: int = 0, progress: float | None = None, **data: Any) -> Event:
    """Return an event at a time in microseconds."""
    status = STATUSES.get(kind, kind if kind in ("completed", "failed", "cancelled") else None)
    when = datetime.fromtimestamp((T + (at or version * 1000)) / 1e6, UTC)
    message = f"{fence} 1" if fence else None
    return Event("a", version, kind, when, JobStatus(status) if status else None, progress, message, data)


def job(status: str = "completed", **fields: str) -> Job:
    """Return a record."""
    record = {"type": "t", "status": status, "run_by": "worker", "progress": "1", "created": str(T), "version": "4",
              "attempt": "1", "max_attempts": "3", "result": '{"fence":7}'}  # fmt: skip
    if status in ("running", "completed"):
        record["started"] = str(T + 1)
    if status in ("completed", "failed", "cancelled"):
        record["completed"] = str(T + 2)
    return Job.stored("a", {**record, **fields})


def run(do: str, fence: int, at: int = 0, pid: int = 1, **what: Any) -> Line:
    """Return a line of a handler."""
    return {"do": do, "job": "a", "fence": fence, "at": T + at, "pid": pid, **what}


def call(do: str, phase: str = "done", **what: Any) -> Line:
    """Return a line of a client."""
    return {"do": do, "job": "a", "phase": phase, "at": T, "pid": 9, "type": "t", **what}


def good() -> History:
    """Return the history of a job that was submitted, ran once and completed."""
    feed = [
        event(1, "created"),
        event(2, "running", worker="host:1:x:1"),
        event(3, "checkpoint", 7),
        event(4, "completed", 7),
    ]
    return History(
        runs=[run("start", 7, 2500, given=None), run("step", 7, 2600, n=1), run("acked", 7, 2700, n=1),
              run("end", 7, 2800, result={"fence": 7})],
        calls=[call("submit", "asked"), call("submit")],
        feed=feed,
        jobs={"a": job()},
        events={"a": list(feed)},
        indexes=[Index(Select(types=("t",), statuses=("completed",)), ("a",), 1)],
        limits={"t": 1},
        patience=1000,
    )  # fmt: skip


def set_feed(history: History, *events: Event) -> None:
    """Replace the feed of a history."""
    history.feed = list(events)


def two_ends(h: History) -> None:
    set_feed(h, *h.feed, event(5, "completed", 7))


def another_result(h: History) -> None:
    h.jobs["a"] = job(result='{"fence":8}')


def another_status(h: History) -> None:
    h.jobs["a"] = job("failed")


def completed_after_cancel(h: History) -> None:
    h.calls += [call("cancel", "asked"), call("cancel")]


def started_after_cancel(h: History) -> None:
    set_feed(h, event(1, "created"), event(2, "cancelled"), event(3, "running"))


def stale_write(h: History) -> None:
    set_feed(h, event(1, "created"), event(2, "running"), event(3, "checkpoint", 7), event(4, "retrying"),
             event(5, "running"), event(6, "checkpoint", 7))  # fmt: skip


def stale_write_between(h: History) -> None:
    set_feed(h, event(1, "created"), event(2, "running"), event(3, "checkpoint", 8), event(4, "progress", 7))


def stale_acknowledgement(h: History) -> None:
    h.runs += [run("start", 9, 2550, given=None)]


def two_leases(h: History) -> None:
    set_feed(h, event(1, "created"), event(2, "running"), event(3, "running"))


def running_without_lease(h: History) -> None:
    h.jobs["a"] = job("running")


def one_fence_twice(h: History) -> None:
    h.runs += [run("start", 7, 2500, pid=2, given=None)]


def found_too_late(h: History) -> None:
    h.deaths = [(1, T + 2500)]
    set_feed(h, event(1, "created"), event(2, "running", worker="host:1:x:1"), event(3, "retrying", at=900_000_000))


def lost_job(h: History) -> None:
    h.jobs.clear()


def deleted_and_there(h: History) -> None:
    h.calls += [call("delete", "asked"), call("delete")]


def unknown_job(h: History) -> None:
    h.calls.clear()


def progress_back(h: History) -> None:
    set_feed(h, event(1, "running"), event(2, "progress", 7, progress=0.5), event(3, "progress", 7, progress=0.4))


def progress_outside(h: History) -> None:
    set_feed(h, event(1, "running"), event(2, "progress", 7, progress=float("inf")))


def times_back(h: History) -> None:
    h.jobs["a"] = job(started=str(T - 5))


def no_end_time(h: History) -> None:
    h.jobs["a"] = Job.stored("a", {k: v for k, v in job().record.items() if k != "completed"})


def gap(h: History) -> None:
    set_feed(h, event(1, "created"), event(2, "running"), event(4, "completed", 7))


def event_not_kept(h: History) -> None:
    del h.events["a"][2]


def not_in_index(h: History) -> None:
    h.indexes = [Index(Select(types=("t",), statuses=("completed",)), (), 1)]


def in_wrong_index(h: History) -> None:
    h.indexes = [Index(Select(types=("t",), statuses=("pending",)), ("a",), 0)]


def wrong_count(h: History) -> None:
    h.indexes = [Index(Select(), ("a",), 2)]


def too_many_attempts(h: History) -> None:
    h.jobs["a"] = job(attempt="4")


def too_many_crashes(h: History) -> None:
    h.jobs["a"] = job(crashes="4")


def checkpoint_lost(h: History) -> None:
    h.runs += [run("start", 9, 9000, given=None)]


def checkpoint_never_sent(h: History) -> None:
    h.runs += [run("start", 9, 9000, given={"fence": 8, "n": 5})]


def over_limit(h: History) -> None:
    other = Event("b", 2, "running", h.feed[0].at)
    h.calls += [{**call("submit", "asked"), "job": "b"}]
    set_feed(h, event(1, "created"), event(2, "running"), other)


def over_limit_of_partition(h: History) -> None:
    h.limits, h.per_partition = {}, {"t": 1}
    h.calls = [{**call("submit", partition=name[0]), "job": name} for name in ("a", "b", "a2")]
    moves = [(name, kind) for name in ("a", "b") for kind in ("created", "running")]
    moves += [("a", "cancelled"), ("a2", "created")]
    h.feed = [Event(name, number, kind, T + number) for number, (name, kind) in enumerate(moves, 1)]
    assert list(RUN_CHECKS["I33"](h)) == [], "each partition has one lease"
    h.feed.append(Event("a2", 2, "running", T + 9))


def two_of_one_key(h: History) -> None:
    h.limits = {}
    h.calls += [{**call("submit", "asked", key="k"), "job": name} for name in "ab"]
    set_feed(h, event(1, "created"), Event("b", 1, "created", h.feed[0].at))


def started_while_stopping(h: History) -> None:
    set_feed(
        h, event(1, "created"), event(2, "running"), event(3, "cancelled"), event(4, "retrying"), event(5, "running")
    )


def too_early(h: History) -> None:
    h.calls += [call("submit", "asked", not_before=T + 10_000_000)]


def too_late(h: History) -> None:
    h.calls += [call("submit", "asked", not_after=T + 1)]


def never_ended(h: History) -> None:
    h.jobs["a"] = job("running", token="7:x", lease="1")


def stopping_left(h: History) -> None:
    h.draining_leases = [("a", "7:x", 1)]


def child_left(h: History) -> None:
    h.children = ["4711 python"]


def not_stopped(h: History) -> None:
    set_feed(h, event(1, "created"), event(2, "running"), event(3, "cancelled"),
             event(4, "receipt", stop_how="cooperative", stop_confirmed="1"))  # fmt: skip
    h.runs += [run("step", 7, 5000, n=2)]


def ran_out_and_confirmed(h: History) -> None:
    set_feed(
        h, event(1, "created"), event(2, "running"), event(3, "receipt", stop_how="lease_expired", stop_confirmed="1")
    )


BREAKS: list[tuple[str, Callable[[History], None]]] = [
    ("I1", two_ends), ("I2", another_result), ("I2", another_status), ("I3", completed_after_cancel),
    ("I3", started_after_cancel), ("I4", stale_write), ("I4", stale_write_between), ("I4", stale_acknowledgement),
    ("I5", two_leases), ("I5", running_without_lease), ("I5", one_fence_twice), ("I6", found_too_late),
    ("I7", lost_job), ("I7", deleted_and_there), ("I8", unknown_job), ("I9", progress_back), ("I9", progress_outside),
    ("I10", times_back), ("I10", no_end_time), ("I11", gap), ("I11", event_not_kept), ("I12", not_in_index),
    ("I12", in_wrong_index), ("I12", wrong_count), ("I15", too_many_attempts), ("I15", too_many_crashes),
    ("I16", checkpoint_lost), ("I16", checkpoint_never_sent), ("I17", over_limit), ("I17", two_of_one_key),
    ("I17 stopping", started_while_stopping), ("I18", too_early), ("I18", too_late), ("I22", never_ended),
    ("I22", stopping_left), ("I22", child_left), ("I33", over_limit_of_partition), ("I26", not_stopped), ("I26", ran_out_and_confirmed),
]  # fmt: skip


def test_valid_history_has_no_violation() -> None:
    assert check(good()) == []


@pytest.mark.parametrize(("invariant", "breaks"), BREAKS, ids=[f"{name} {f.__name__}" for name, f in BREAKS])
def test_violation_is_detected(invariant: str, breaks: Callable[[History], None]) -> None:
    history = good()
    breaks(history)
    assert list({**CHECKS, **RUN_CHECKS}[invariant](history))


def test_every_check_has_violating_history() -> None:
    assert {name for name, _ in BREAKS} == {*CHECKS, *RUN_CHECKS}
