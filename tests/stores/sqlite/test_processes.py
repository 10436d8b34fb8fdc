"""Several real processes on one file, ended by signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from milepost.core.errors import StoreUnavailableError
from milepost.stores.protocol import Select
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.stores.sqlite.conftest import Make
from tests.stores.sqlite.sqlite_fixture import check_file, claim, create, do
from tests.waiting import PATIENCE

pytestmark = pytest.mark.timing

ROOT = Path(__file__).resolve().parents[3]
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn(path: Path) -> Iterator[Spawn]:
    """Yield a function that starts a program of `child` on the test's file; it is killed with the test."""
    children: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}

    def start(name: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.stores.sqlite.child", name, str(path), *map(str, arguments)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def line(child: subprocess.Popen[str]) -> str:
    """Return the next line that a child prints."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_concurrent_processes_lose_no_write(spawn: Spawn, path: Path, make: Make) -> None:
    children = [spawn("write", f"p{number}", 60) for number in range(4)]
    said = {job_id for child in children for job_id in child.communicate(timeout=PATIENCE)[0].split()}
    assert [child.returncode for child in children] == [0, 0, 0, 0]
    assert len(said) == 240
    assert set(check_file(path)) == said
    assert run_sync(make().count(Select(labels=(("by", "p2"),)))) == 60


def test_no_job_is_claimed_by_two_processes(spawn: Spawn, path: Path, make: Make) -> None:
    do(make(), *(create(f"j{number}") for number in range(100)))
    children = [spawn("drain", f"w{number}") for number in range(3)]
    said = [job_id for child in children for job_id in child.communicate(timeout=PATIENCE)[0].split()]
    assert sorted(said) == sorted(f"j{number}" for number in range(100))
    assert {record["status"] for record in check_file(path).values()} == {"completed"}


def test_kill_in_transaction_leaves_nothing_partial(spawn: Spawn, path: Path, make: Make) -> None:
    child = spawn("die_before_commit")
    assert line(child) == "kept"
    assert child.wait(PATIENCE) == -signal.SIGKILL
    store = make()
    assert {job.job_id for job in run_sync(store.select(Select(), 10))} == {"kept"}
    do(store, create("half"))
    assert set(check_file(path)) == {"kept", "half"}


def test_fork_while_threads_make_stores(spawn: Spawn) -> None:
    """A fork at that moment left connections open in the child: "Set changed size during iteration"."""
    assert line(spawn("fork")) == "[]"


def test_fork_while_a_thread_opens_a_store_loses_no_job_of_the_child(spawn: Spawn) -> None:
    """Regression: the child had no lock on the file. When the parent closed it, it deleted the log that the child wrote to."""
    assert line(spawn("fork_meanwhile")) == "child child-again parent"


@pytest.mark.parametrize("after", [3, 11, 24])
def test_kill_loses_no_acknowledged_write(spawn: Spawn, path: Path, after: int) -> None:
    child = spawn("write", "p", 100_000)
    said = [line(child) for _ in range(after)]
    child.kill()
    assert child.stdout is not None
    said += child.stdout.read().split()
    records = check_file(path)
    assert set(said) <= set(records)
    assert len(records) <= len(said) + 1, "at most the one that was not yet acknowledged"


@pytest.mark.parametrize("after", [1, 6, 13, 24])
def test_kill_leaves_no_large_value_without_its_record(spawn: Spawn, path: Path, after: int) -> None:
    child = spawn("large")
    for _ in range(after):
        assert line(child)
    child.kill()
    child.wait()
    assert check_file(path)  # each marker has its value, and each value its marker


def test_short_lock_is_waited_for(spawn: Spawn, make: Make) -> None:
    store = make(patience=PATIENCE)
    do(store, create("before"))
    child = spawn("lock", 3)
    assert line(child) == "locked"
    do(store, create("after"))
    assert time.monotonic() > float(line(child)), "it was written before the lock was free"


def test_long_lock_is_an_error_and_writes_nothing(spawn: Spawn, make: Make) -> None:
    store = make(patience=0.3)
    do(store, create("before"))
    child = spawn("lock", 30)
    assert line(child) == "locked"
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"jobs\.db: locked by another process for more than 0\.3 s"):
        run_sync(store.apply([create("never")]))
    assert 0.25 < time.monotonic() - began < 25, "it did not wait for as long as the lock was held"
    child.kill()
    child.wait()
    do(store, create("after"))
    assert {job.job_id for job in run_sync(store.select(Select(), 10))} == {"before", "after"}


def test_threads_read_while_one_waits_for_lock(spawn: Spawn, make: Make) -> None:
    store = make(patience=60.0)
    do(store, create("before"))
    child = spawn("lock", 60)
    assert line(child) == "locked"
    writer = threading.Thread(target=lambda: do(store, create("after")))
    writer.start()
    for _ in range(20):
        assert run_sync(store.get("before")) is not None, "reading waits for no writer"
    assert writer.is_alive()
    child.kill()
    writer.join(PATIENCE)
    assert run_sync(store.get("after")) is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_no_connection_crosses_a_fork(make: Make, path: Path) -> None:
    store = make()
    do(store, create("before"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in range(50):
                do(store, create(f"child-{number}"))
            code = 0 if run_sync(store.get("before")) is not None else 2
        finally:
            os._exit(code)
    for number in range(50):
        do(store, create(f"parent-{number}"))
    run_sync(store.close())  # the parent's last connection goes: the child's must not lose its log by that
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(check_file(path)) == 101


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_during_writes_is_safe(make: Make, path: Path) -> None:
    store = make()
    stop = threading.Event()
    written: list[str] = []

    def work(name: str) -> None:
        while not stop.is_set():
            do(store, create(f"{name}-{len(written)}-{time.monotonic_ns()}"))
            written.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    codes = []
    for number in range(5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                do(store, create(f"child-{number}"))
                code = 0
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert codes == [0] * 5
    assert len(check_file(path)) == len(written) + 5


def test_submit_in_other_process_wakes_worker(spawn: Spawn, make: Make) -> None:
    store = make()
    run_sync(store.now())
    child = spawn("later", 0.3)
    assert line(child) == "ready"
    assert run_sync(store.wait_for_work("w", ["q"], PATIENCE))
    woken = time.monotonic()
    assert woken - float(line(child)) < PATIENCE / 2, "it was woken only by its own time limit"
    assert [job.job_id for job in claim(store)] == ["later"]


def test_feed_sees_writes_of_other_process(spawn: Spawn, make: Make) -> None:
    store = make()
    position = run_sync(store.feed(None)).position
    child = spawn("later", 0.2)
    assert line(child) == "ready"
    found = run_sync(store.feed(position, timeout=PATIENCE))
    assert [(event.job_id, event.kind) for event in found.events] == [("later", "created")]


def test_wake_from_other_process_wakes_worker(spawn: Spawn, make: Make) -> None:
    store = make()
    assert not run_sync(store.wait_for_work("w", ["q"], 0))
    spawn("wake", "w")
    assert run_sync(store.wait_for_work("w", ["q"], PATIENCE))
    assert not run_sync(store.wait_for_work("w", ["q"], 0.05)), "a nudge wakes once"


def test_clock_stands_still_when_set_back_a_little(make: Make) -> None:
    clock = FrozenClock()
    first = make(clock=clock)
    do(first, create("a"))
    token = claim(first)[0].record["token"]
    before = run_sync(first.now())
    run_sync(first.close())
    second = make(clock=FrozenClock(clock() - 20_000_000))
    assert run_sync(second.now()) >= before
    do(second, create("b"))
    jobs = run_sync(second.select(Select(), 10))
    assert [job.job_id for job in jobs] == ["b", "a"], "by time, then id"
    again = claim(second)[0].record["token"]
    assert int(again.split(":")[0]) > int(token.split(":")[0])
