"""The soak on the stores that processes share, and the checker held against broken histories: it must find each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from milepost.core.events import Event
from milepost.core.job import Job
from tests.chaos.checker import History, Told, breaches
from tests.chaos.soak import Plan, Soak

SCALE = float(os.environ.get("SOAK_SCALE", "1"))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_nothing_is_lost_ended_twice_or_written_by_a_stale_run(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:  # fmt: skip
    url: str = request.getfixturevalue(f"{store}_url")
    seed = int(os.environ.get("SOAK_SEED", time.time_ns() % 10**9))
    plan = Plan()
    plan = replace(plan, jobs=int(plan.jobs * SCALE), kills=int(plan.kills * SCALE), cancels=int(plan.cancels * SCALE))
    soak = Soak(url, f"soak{seed}", tmp_path, plan, seed)
    history = soak.run()
    statuses = dict(sorted(history.counts.items()))
    print(f"seed {seed}: {len(history.jobs)} jobs, {soak.did}, {len(history.ledger)} ledger lines, {statuses}")
    assert breaches(history) == []


# --- negative controls: a checker that cannot fail proves nothing -----------------------------------------------------


def sound() -> History:
    """A small history that is well: a job that ran twice, and one that was cancelled."""

    def event(job: str, version: int, kind: str, **more: Any) -> Event:
        status = {"progress": None, "checkpoint": None, "receipt": None, "retrying": "pending"}.get(kind, kind)
        text = {**({"status": status} if status and kind != "created" else {}), **more}
        return Event.stored(job, version, kind, version * 1_000_000, text)

    done = {
        "type": "threaded", "status": "completed", "progress": "1", "created": "1000000", "started": "4000000",
        "completed": "6000000", "version": "7", "attempt": "1", "max_attempts": "4", "crashes": "1", "driver": "worker",
        "result": '{"fence":20,"value":1}',
    }  # fmt: skip
    gone = {
        "type": "threaded", "status": "cancelled", "progress": "0.5", "created": "1000000", "started": "2000000",
        "completed": "3000000", "version": "4", "attempt": "1", "max_attempts": "4", "driver": "worker", "stop_at": "3000000",
        "stopped": "4000000", "stop_how": "cooperative", "stop_confirmed": "1",
    }  # fmt: skip
    ledger = [
        {"what": "began", "at": 2.1, "job": "a", "fence": 10, "given": 0},
        {"what": "checkpoint", "at": 2.5, "job": "a", "fence": 10, "step": 1},
        {"what": "began", "at": 5.1, "job": "a", "fence": 20, "given": 1},
        {"what": "returned", "at": 5.5, "job": "a", "fence": 20, "result": {"fence": 20, "value": 1}},
        {"what": "began", "at": 2.1, "job": "b", "fence": 11, "given": 0},
        {"what": "step", "at": 3.5, "job": "b", "fence": 11, "step": 0},
    ]
    events = {
        "a": [
            event("a", 1, "created"),
            event("a", 2, "running", progress="0"),
            event("a", 3, "checkpoint", progress="0.5", message="fence 10 step 0"),
            event("a", 4, "retrying"),
            event("a", 5, "running", progress="0"),
            event("a", 6, "checkpoint", progress="0.7", message="fence 20 step 1"),
            event("a", 7, "completed", progress="1"),
        ],
        "b": [
            event("b", 1, "created"),
            event("b", 2, "running", progress="0"),
            event("b", 3, "cancelled"),
            event("b", 4, "receipt"),
        ],
    }
    jobs = {"a": Job.stored("a", done), "b": Job.stored("b", gone)}
    counts = {("threaded", "completed"): 1, ("threaded", "cancelled"): 1}
    return History(Told({"a": {}, "b": {}}, {"b"}), ledger, jobs, events, counts)


def changed(history: History, job: str, **fields: str) -> None:
    """Change fields of a record."""
    history.jobs[job] = Job.stored(job, {**history.jobs[job].record, **fields})


def told_late(history: History) -> None:
    history.ledger.append({"what": "step", "at": 9.0, "job": "b", "fence": 11, "step": 1})


def stale_write(history: History) -> None:
    history.events["a"].insert(
        6, Event.stored("a", 6, "progress", 0, {"progress": "0.7", "message": "fence 10 step 2"})
    )


DAMAGES: list[tuple[str, Callable[[History], Any]]] = [
    ("I7", lambda h: h.jobs.pop("a")),
    ("I7", lambda h: h.told.deleted.add("a")),
    ("I8", lambda h: h.told.submitted.pop("a")),
    ("I12", lambda h: h.counts.update({("threaded", "completed"): 2})),  # type: ignore[attr-defined]
    ("I1", lambda h: h.events["a"].append(replace(h.events["a"][-1], version=8, kind="failed"))),
    ("I2", lambda h: changed(h, "a", status="failed")),
    ("I2", lambda h: changed(h, "a", result='{"fence":20,"value":2}')),
    ("I3", lambda h: h.told.cancelled.add("a")),
    ("I3", lambda h: h.events["b"].append(replace(h.events["b"][1], version=5))),
    ("I4", stale_write),
    ("I4", lambda h: h.ledger.append({"what": "began", "at": 5.3, "job": "a", "fence": 30, "given": 1})),
    ("I5", lambda h: h.ledger.append({"what": "began", "at": 5.3, "job": "a", "fence": 20, "given": 1})),
    ("I9", lambda h: h.events["a"].insert(6, replace(h.events["a"][5], progress=0.1))),
    ("I10", lambda h: changed(h, "a", started="0")),
    ("I10", lambda h: changed(h, "a", completed="3000000")),
    ("I11", lambda h: h.events["a"].append(replace(h.events["a"][2], version=2))),
    ("I15", lambda h: changed(h, "a", attempt="5")),
    ("I15", lambda h: changed(h, "a", crashes="4")),
    ("I16", lambda h: h.ledger[2].update(given=0)),
    ("I22", lambda h: changed(h, "a", status="running")),
    ("I26", told_late),
    (
        "I26",
        lambda h: h.jobs.update(
            b=Job.stored("b", {k: v for k, v in h.jobs["b"].record.items() if k != "stop_confirmed"})
        ),
    ),
]


def test_a_sound_history_has_no_breach() -> None:
    assert breaches(sound()) == []


@pytest.mark.parametrize(("invariant", "damage"), DAMAGES, ids=[f"{name}-{at}" for at, (name, _) in enumerate(DAMAGES)])
def test_each_damage_is_found(invariant: str, damage: Callable[[History], Any]) -> None:
    history = sound()
    damage(history)
    assert [line for line in breaches(history) if line.startswith(invariant)]
