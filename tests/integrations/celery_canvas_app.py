"""A Celery application with each task twice: as it is ("bare"), and under `@tracked`; results must be the same."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import celery
from celery import chain, signals

from milepost import Jobs
from milepost.integrations.celery import CeleryTaskQueue, current_run, tracked
from tests.integrations.sample_handlers import note

KINDS = ("bare", "tracked")

app = celery.Celery("canvas", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_RESULTS"])
app.conf.update(
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("TEST_VISIBILITY", "3600")),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "priority_steps": [0, 3, 6, 9],
    },
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)
jobs = Jobs(task_queue=CeleryTaskQueue(app))


def is_open() -> bool:
    """Return whether waiting tasks may continue."""
    return Path(os.environ["TEST_LOG"] + ".open").exists()


def define(kind: str) -> SimpleNamespace:
    """Register the tasks under names that begin with `kind`."""

    def task(name: str, **options: Any) -> Any:
        def decorate(function: Any) -> Any:
            made = app.task(name=f"{kind}.{name}", **options)(function)
            return tracked(jobs=jobs)(made) if kind == "tracked" else made

        return decorate

    @task("add")
    def add(x: int, y: int) -> int:
        note(f"{kind} add {x} {y}")
        return x + y

    @task("total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @task("held")
    def held(x: int, y: int) -> int:
        note(f"{kind} held {x} {y}")
        while not is_open():
            time.sleep(0.02)
        return x + y

    @task("waits")
    def waits(gate: str, looks: bool) -> str:
        note(f"{kind} waits {gate}")
        while not Path(f"{os.environ['TEST_LOG']}.{gate}").exists():
            if looks and kind == "tracked":
                current_run().checkpoint(gate)
            time.sleep(0.02)
        return gate

    @task("routed", bind=True)
    def routed(self: Any) -> list[Any]:
        note(f"{kind} routed")
        while not is_open():
            time.sleep(0.02)
        info = self.request.delivery_info
        custom = (self.request.headers or {}).get("tenant")
        return [info["routing_key"], info["priority"], list(self.request.timelimit), custom]

    @task("replacing", bind=True)
    def replacing(self: Any, x: int) -> Any:
        return self.replace(add.s(x, 100))

    @task("replacing_twice", bind=True)
    def replacing_twice(self: Any, x: int) -> Any:
        return self.replace(chain(replacing.s(x), add.s(1000)))

    @task("at_once", bind=True, max_retries=3)
    def at_once(self: Any, fails: int) -> int:
        if self.request.retries < fails:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    @task("first_retries", bind=True, max_retries=1)
    def first_retries(self: Any) -> int:
        return int(self.request.retries)

    @task("too_long", time_limit=1)
    def too_long() -> None:
        note(f"{kind} too_long")
        time.sleep(60)

    @task("dies")
    def dies() -> None:
        note(f"{kind} dies")
        os.kill(os.getpid(), signal.SIGKILL)

    @task("dies_once", reject_on_worker_lost=True)
    def dies_once(x: int) -> int:
        flag = Path(os.environ["TEST_LOG"] + f".{kind}.died")
        note(f"{kind} dies_once")
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    @task("broken")
    def broken() -> None:
        raise KeyError("broken")

    @task("pair")
    def pair(x: int) -> list[Any]:
        note(f"{kind} pair {x}")
        return [x, datetime(2026, 1, 2, tzinfo=UTC)]

    @task("kind_of")
    def kind_of(values: list[Any]) -> str:
        return " ".join(type(value).__name__ for value in values)

    @app.task(name=f"{kind}.remember")
    def remember(request: Any, error: Any, stack: Any) -> None:
        note(f"{kind} remember {type(error).__name__}")

    return SimpleNamespace(**{name: value for name, value in locals().items() if isinstance(value, celery.Task)})


tasks = {kind: define(kind) for kind in KINDS}


@signals.before_task_publish.connect
def die_before_next_link(sender: str, **_: Any) -> None:
    """Kill the worker, once, when a task has returned and the next one of its chain is about to be sent."""
    flag = Path(os.environ["TEST_LOG"] + ".window")
    if sender == "tracked.kind_of" and "TEST_WORKER" in os.environ and flag.exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
