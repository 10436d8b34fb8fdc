"""One process for one handler or program of the corpus, which is interrupted at the n-th write that the store accepts."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost import Jobs, Settings
from milepost.core.errors import RejectedError
from milepost.stores.memory.store import MemoryStore
from milepost.stores.redis.store import RedisStore
from milepost.stores.sqlite.store import SQLiteStore
from milepost.worker import run_worker
from milepost.worker.handlers import Handler
from tests.truth import controls, program, published, slow_loops, work

MAX_ATTEMPTS = 4
JOB_ID = "case"
JOB_TYPE = "handler"


@dataclass(frozen=True)
class Case:
    """One handler or program on one store, with how and when it is interrupted.

    `folder` holds what outlives its processes.
    """

    handler: str
    url: str
    namespace: str
    folder: str
    kind: str
    at: int
    lease: float
    control: str | None = None

    @property
    def is_program(self) -> bool:
        """Whether it is a program that is started again, instead of a handler that a worker runs again."""
        return self.handler in published.published_programs()

    @property
    def files(self) -> Path:
        """The folder that the handler writes into."""
        return Path(self.folder) / "files"

    @property
    def outcome(self) -> Path:
        """The file that says how the job has ended."""
        return Path(self.folder) / "outcome.json"

    @property
    def mark(self) -> Path:
        """The file that is there once the job was interrupted."""
        return Path(self.folder) / "interrupted"


def serve(case: Case) -> None:
    """Run a worker until the job of the case has ended, or this process is interrupted."""
    log = open(Path(case.folder) / "worker.log", "a")  # noqa: SIM115 - it is open as long as the process
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.WARNING, stream=log)
    os.environ[work.AWAY] = str(Path(case.folder) / "away")
    case.files.mkdir(exist_ok=True)
    if case.control is not None:
        controls.apply(case.control)
    times = {"lease": case.lease, "sweep": 0.1, "heartbeat": 0.005, "grace": 1.0}
    if case.is_program:
        _serve_program(case, times)
        return
    jobs = Jobs(case.url, options=Settings(namespace=case.namespace, **times))
    function, parameters = _load(case)
    isolation = function.type_options.isolation if isinstance(function, Handler) else None
    function = function.function if isinstance(function, Handler) else function
    jobs.job(JOB_TYPE, max_attempts=MAX_ATTEMPTS, isolation=isolation)(function)
    if case.kind != "undisturbed" and not case.mark.exists():
        _count_writes(lambda before, count: _interrupt(case, before, count, jobs))
    if jobs.get_job(JOB_ID) is None:
        jobs.submit(JOB_TYPE, parameters, job_id=JOB_ID)
    threading.Thread(target=_await_end, args=(case, jobs), daemon=True).start()
    run_worker(jobs, concurrency=1)
    os._exit(0)


def _load(case: Case) -> tuple[Any, dict[str, Any]]:
    """Return the handler of a case, and its parameters."""
    if case.handler not in published.published_handlers():
        module = importlib.import_module(f"tests.truth.handlers.{case.handler}")
        return module.handler, {"folder": str(case.files)}
    slow_loops.apply()
    os.chdir(case.files)
    handler = published.load_handler(case.handler)
    return handler, published.parameters_for(handler, case.files)


def _serve_program(case: Case, times: dict[str, float]) -> None:
    """Run a program, and write down how its jobs have ended; without that it is started again."""
    starts = Path(case.folder) / "starts"
    with starts.open("a") as file:
        file.write("1")
    slow_loops.apply()
    count = 0

    def on_writes(before: int, now: int) -> None:
        nonlocal count
        count = now
        if case.kind != "undisturbed" and not case.mark.exists():
            _interrupt(case, before, now, None)

    _count_writes(on_writes, job_id=None)
    outcome = program.run(published.published()[case.handler], case.files, case.namespace, times)
    _write_outcome(
        case, outcome | {"starts": len(starts.read_text()), "version": count, "files": _contents(case.files)}
    )
    os._exit(0)


def _interrupt(case: Case, before: int, count: int, jobs: Jobs | None) -> None:
    """Interrupt this process or its job once the store has accepted the number of writes of the case."""
    if not before < case.at <= count:
        return
    case.mark.touch()
    match case.kind:
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "SIGTERM":
            _terminate()
        case "error":
            Path(os.environ[work.AWAY]).touch()
        case "cancel":
            threading.Thread(target=_cancel_and_retry, args=(jobs,), daemon=True).start()


def _count_writes(on_writes: Callable[[int, int], None], job_id: str | None = JOB_ID) -> None:
    """Call back with the number of writes of a job, or of all jobs, that the stores of this process have accepted."""
    lock = threading.Lock()
    count = 0

    def accepted(number: int) -> None:
        nonlocal count
        with lock:
            before, count = count, count + number
        on_writes(before, before + number)

    inside = threading.local()
    for store in (MemoryStore, SQLiteStore, RedisStore):
        for name in ("apply", "heartbeat"):
            setattr(store, name, _counted(getattr(store, name), accepted, inside, job_id))


def _counted(
    method: Callable[..., Any], accepted: Callable[[int], None], inside: threading.local, job_id: str | None
) -> Any:
    async def counted(self: Any, writes: Any, *more: Any) -> Any:
        outer = not getattr(inside, "is_set", False)
        inside.is_set = True
        try:
            answer = await method(self, writes, *more)
        finally:
            if outer:
                inside.is_set = False
        if outer:
            outcomes = answer.outcomes if hasattr(answer, "outcomes") else answer[0]
            number = sum(job_id in (None, w.job_id) and o.accepted for w, o in zip(writes, outcomes, strict=True))
            number += len(getattr(answer, "claimed", ()))
            if number:
                accepted(number)
        return answer

    return counted


def _cancel_and_retry(jobs: Jobs) -> None:
    with contextlib.suppress(RejectedError):  # it may have ended meanwhile
        jobs.cancel_job(JOB_ID)
        while (job := jobs.get_job(JOB_ID)) is not None and (job.receipt is None or job.receipt.confirmed is None):
            time.sleep(0.005)
        jobs.retry_job(JOB_ID)


def _await_end(case: Case, jobs: Jobs) -> None:
    """Write down how the job has ended, and end the worker."""
    while True:
        job = jobs.wait(JOB_ID, 100)
        time.sleep(0.05)
        job = jobs.get_job(JOB_ID) or job
        if job.status != "cancelled" and job.is_terminal:
            break
    events = jobs.events(JOB_ID)
    logs = [line["text"] for event in events if event.kind == "log" for line in (event.data or {})["lines"]]
    counts = job.item_counts
    outcome = {
        "status": job.status.value,
        "result": job.result,
        "error": job.error,
        "items": [counts.done, counts.failed, sorted(counts.failed_keys)] if counts is not None else None,
        "files": _contents(case.files),
        "log": logs,
        "starts": sum(event.kind == "running" for event in events),
        "version": job.version,
    }
    _write_outcome(case, outcome)
    _terminate()


def _write_outcome(case: Case, outcome: dict[str, Any]) -> None:
    """Write down in one step how a case has ended."""
    draft = case.outcome.with_suffix(".draft")
    draft.write_text(json.dumps(outcome))
    draft.rename(case.outcome)


def _terminate() -> None:
    """Send SIGTERM to the main thread, which an idle event loop hears of at once only there."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _contents(folder: Path) -> dict[str, Any]:
    """Return what the handler has written, a database as its rows."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name == program.STORE:
            continue
        if path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as db:
                found[name] = sorted(db.iterdump())
        elif path.is_file() and not name.endswith(("-wal", "-shm", "-journal")):
            found[name] = path.read_text()
    return found
