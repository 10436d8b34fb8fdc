"""A report of the heartbeat and a write of the code do not replace newer values of the other, on every store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from milepost import JobManager, Run, StoreUnavailableError
from milepost.stores.protocol import Write
from tests.run.held_heartbeat import HeldHeartbeat
from tests.waiting import PATIENCE, current, until

pytestmark = pytest.mark.timing

ALL = {"tokens": 1, "usd": 3}


def write(run: Run, way: str) -> None:
    """Write for a run in a way that returns when the store has it."""
    if way == "step":
        run.step("paid", lambda: 1)
    elif way == "checkpoint":
        run.checkpoint(1)
    else:
        asyncio.run(run.acheckpoint(1))


def report_older(run: Run) -> None:
    """Report what is replaced later."""
    run.add_usage(tokens=1)
    run.progress(0.1, "older")


def report_newer(run: Run) -> None:
    """Report what is to stay; its usage has another name."""
    run.add_usage(usd=3)
    run.progress(0.2, "newer")


def is_newer(manager: JobManager, run: Run) -> bool:
    """Return whether the record has the newer report."""
    job = current(manager, run)
    return (job.message, job.usage) == ("newer", ALL)


def in_ledger(manager: JobManager) -> Mapping[str, float]:
    """Return what all jobs have spent."""
    return manager.usage().total


@pytest.mark.parametrize("way", ["step", "checkpoint", "acheckpoint"])
class TestOlderReport:
    """Regression: an older report came after the newer usage, whose new names the ledger counted again after that."""

    def test_report_under_way_changes_nothing_after_newer_write(
        self, manager: JobManager, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        held = HeldHeartbeat(manager.runtime.heartbeat.store, monkeypatch, before="request")
        with manager.track("spend") as run:
            report_older(run)
            assert held.began.wait(PATIENCE)
            report_newer(run)
            write(run, way)
            assert held.is_held, "the code has waited for the heartbeat"
            assert current(manager, run).usage == ALL
            held.release()
            until(lambda: is_newer(manager, run))
        assert is_newer(manager, run)
        assert in_ledger(manager) == ALL

    def test_repeated_report_changes_nothing_after_newer_write(
        self, manager: JobManager, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        store, was_sent, is_back = manager.runtime.heartbeat.store, threading.Event(), threading.Event()
        real = store.heartbeat

        async def heartbeat(writes: Sequence[Write], *more: Any) -> Any:
            if any("older" in write.change.values for write in writes) and not is_back.is_set():
                was_sent.set()
                raise StoreUnavailableError("away")
            return await real(writes, *more)

        monkeypatch.setattr(store, "heartbeat", heartbeat)
        with manager.track("spend") as run:
            report_older(run)
            assert was_sent.wait(PATIENCE)
            report_newer(run)
            write(run, way)
            is_back.set()
            until(lambda: is_newer(manager, run))
        assert in_ledger(manager) == ALL


@pytest.mark.parametrize("way", ["step", "checkpoint"])
def test_report_is_sent_again_after_late_write(manager: JobManager, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Regression: a kept step that was written after a newer report put back the usage, for the rest of the run."""
    store, began, is_released = manager.runtime.heartbeat.store, threading.Event(), threading.Event()
    real = store.apply

    async def apply(writes: Sequence[Write], *more: Any) -> Any:
        if any(write.change.transition.name in ("keep_step", "checkpoint") for write in writes):
            began.set()
            assert is_released.wait(PATIENCE)
        return await real(writes, *more)

    monkeypatch.setattr(store, "apply", apply)
    with manager.track("spend") as run:
        report_older(run)
        writing = threading.Thread(target=write, args=(run, way))
        writing.start()
        assert began.wait(PATIENCE)
        report_newer(run)
        until(lambda: is_newer(manager, run))
        is_released.set()
        writing.join()
        until(lambda: is_newer(manager, run))
    assert is_newer(manager, run)
