"""A tiny stand-in for a Run, until the real one is there: remembers what a job reports and can cancel it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Cancelled(BaseException):
    """What a report raises once the run was cancelled."""


class StandInStage:
    def __init__(self, run: StandInRun, name: str, weight: float, total: float | None) -> None:
        self.run, self.name, self.weight, self.total, self.done = run, name, weight, total, 0.0

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        self.run.report()


class StandInRun:
    """Calls `watch(run)` at every report; `cancel()` makes the next one raise."""

    def __init__(self, watch: Any = None) -> None:
        self.watch = watch
        self.cancelled = False
        self.stages: list[StandInStage] = []
        self.progress_seen: list[float] = []
        self.messages: list[str] = []
        self.logged: list[str] = []
        self.checkpoints: list[Any] = []
        self.last_checkpoint: Any = None
        self.items: dict[str, BaseException | None] = {}
        self.result: Any = None
        self.skipped = 0

    def cancel(self) -> None:
        self.cancelled = True

    def report(self) -> None:
        done = sum(
            stage.weight * (min(stage.done / stage.total, 1) if stage.total else stage is not self.stages[-1])
            for stage in self.stages
        )
        self.progress_seen.append(done)
        if self.watch is not None:
            self.watch(self)
        if self.cancelled:
            raise Cancelled

    def progress(self, fraction: float | None = None, *, message: str | None = None) -> None:
        if message is not None:
            self.messages.append(message)
        self.report()

    @contextmanager
    def stage(
        self, name: str, *, weight: float = 1, total: float | None = None, unit: str = ""
    ) -> Iterator[StandInStage]:
        self.stages.append(StandInStage(self, name, weight, total))
        yield self.stages[-1]

    def check(self) -> None:
        self.report()

    def skip(self) -> None:
        self.skipped += 1

    @contextmanager
    def item(self, key: str) -> Iterator[StandInRun]:
        try:
            yield self
        except Exception as error:
            self.items[key] = error
        else:
            self.items[key] = None

    def checkpoint(self, value: Any) -> None:
        self.last_checkpoint = value
        self.checkpoints.append(value)
        self.report()

    def log(self, text: str) -> None:
        self.logged.append(text)
