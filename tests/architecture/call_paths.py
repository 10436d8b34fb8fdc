"""Record which source files of the package a call enters, in every thread that takes part."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.types import Message

from milepost import AsyncJobManager, AsyncJobs, JobManager, Jobs, Run
from milepost.core.job import Job
from milepost.settings import Settings
from milepost.stores.factory import open_store
from milepost.stores.protocol import KeyValueStore, Store
from milepost.stores.sync_bridge import run_sync
from milepost.web import auth, create_app

SOURCE = str(Path(__file__).resolve().parents[2] / "src" / "milepost") + "/"
REPEATS = 6
"""How often a call is recorded. The shortest recording counts, because timers may fire during the others."""
PATIENCE = 30.0


class CallPath(NamedTuple):
    """The files that were entered, and the methods of the store that were called: on Redis, one round trip each."""

    files: frozenset[str]
    requests: tuple[str, ...]


class Recorder:
    """Collects the files that profiled threads enter while it is on."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._requests: list[str] = []
        self._is_on = False

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """See sys.setprofile."""
        name = frame.f_code.co_filename
        if self._is_on and event == "call" and name.startswith(SOURCE):
            self._files.add(name[len(SOURCE) :])

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Profile every thread that starts in the block."""
        threading.setprofile(self.note)
        try:
            yield
        finally:
            threading.setprofile(None)  # type: ignore[arg-type]

    def record(self, call: Callable[[], None]) -> CallPath:
        """Return the path of a call, which ends when all that belongs to it is done."""
        self._files, self._requests, self._is_on = set(), [], True
        call()
        self._is_on = False
        return CallPath(frozenset(self._files), tuple(self._requests))

    def count_requests(self, store: Store, patch: pytest.MonkeyPatch) -> None:
        """Count the calls of stores of this class, except by the thread of the test, which only observes."""

        def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if self._is_on and threading.current_thread() is not threading.main_thread():
                    self._requests.append(name)
                return method(*args, **options)

            return call

        for name in (*vars(Store), *vars(KeyValueStore)):
            method = getattr(type(store), name, None)
            if not name.startswith("_") and asyncio.iscoroutinefunction(method):
                patch.setattr(type(store), name, counted(name, method))


class LoopThread:
    """An event loop in a profiled thread."""

    def __init__(self, recorder: Recorder) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        with recorder.threads():
            self._thread.start()

    def run(self, work: Any) -> Any:
        """Run a coroutine in the loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()


def shortest(paths: Iterator[CallPath]) -> CallPath:
    """Return the fewest files and the fewest requests of several recordings."""
    found = list(paths)
    files, requests = zip(*found, strict=True)
    return CallPath(min(files, key=len), min(requests, key=len))


def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def update_path(url: str, options: Settings) -> CallPath:
    """Return the path of `update_job` in the steady state."""
    recorder = Recorder()
    with closing(JobManager(url, options=options)) as manager:
        manager.create_job("a")

        def update() -> None:
            sys.setprofile(recorder.note)
            manager.update_job("a", progress=0.3)
            sys.setprofile(None)

        return shortest(recorder.record(update) for _ in range(REPEATS))


class Working(NamedTuple):
    """A worker in a profiled thread, and how a test calls and observes it."""

    thread: LoopThread
    jobs: AsyncJobs
    submit: Callable[[str], str]
    get: Callable[[str], Job]


@contextmanager
def working(recorder: Recorder, url: str, options: Settings) -> Iterator[Working]:
    """Run a worker for two types: `short` returns, `long` runs until it is stopped."""

    async def work() -> AsyncIterator[AsyncJobs]:
        jobs = AsyncJobs(url, options=options)

        @jobs.job
        async def short(run: Run) -> str:
            return "done"

        @jobs.job
        async def long(run: Run) -> None:
            await asyncio.Event().wait()

        async with jobs.run_workers():
            yield jobs
        await jobs.close()

    looking = open_store(url, namespace=options.namespace, blocking=True)

    def get(job_id: str) -> Job:
        job = run_sync(looking.get(job_id))
        assert job is not None
        return job

    with recorder.threads(), closing(Jobs(url, options=options)) as caller:
        thread = LoopThread(recorder)
        opened = asynccontextmanager(work)()
        jobs = thread.run(opened.__aenter__())
        try:
            yield Working(thread, jobs, lambda job_type: caller.submit(job_type).job_id, get)
        finally:
            thread.run(opened.__aexit__(None, None, None))
            run_sync(looking.close())
            thread.close()


def run_path(url: str, options: Settings) -> CallPath:
    """Return the path of a job in a worker: claim, run and complete."""
    recorder = Recorder()
    with working(recorder, url, options) as here:

        def run() -> None:
            job_id = here.submit("short")
            until(lambda: here.get(job_id).is_terminal)
            time.sleep(0.02)  # the worker looks for the next job

        return shortest(recorder.record(run) for _ in range(REPEATS))


def cancel_path(url: str, options: Settings, patch: pytest.MonkeyPatch) -> CallPath:
    """Return the path of a cancel over HTTP, until the code has stopped and the record says so."""
    recorder = Recorder()
    with working(recorder, url, options) as here:
        recorder.count_requests(here.jobs.store, patch)
        transport = httpx.ASGITransport(create_app(here.jobs, auth=auth.none()))
        client = httpx.AsyncClient(transport=transport, base_url="http://testserver")

        def cancel(job_id: str) -> None:
            answer = here.thread.run(client.post(f"/api/jobs/{job_id}/cancel"))
            assert answer.status_code == 200
            until(lambda: (receipt := here.get(job_id).receipt) is not None and receipt.confirmed)

        def path_of_next() -> CallPath:
            job_id = here.submit("long")
            until(lambda: here.get(job_id).status == "running")
            time.sleep(0.05)  # the worker waits again
            return recorder.record(lambda: cancel(job_id))

        return shortest(path_of_next() for _ in range(REPEATS))


def event_path(url: str, options: Settings) -> CallPath:
    """Return the path of an event from the feed to the bytes of a client of its job's stream."""
    recorder = Recorder()
    sent: list[bytes] = []

    async def listen(path: str) -> None:
        jobs = AsyncJobManager(url, options=options)
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": [],
                 "query_string": b"", "scheme": "http", "server": ("testserver", 80), "root_path": ""}  # fmt: skip

        async def receive() -> Message:
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message.get("body", b""))

        try:
            await create_app(jobs, auth=auth.none())(scope, receive, send)
        finally:
            await jobs.close()

    def update() -> None:
        before = len(sent)
        manager.update_job(job_id, message=str(before))
        until(lambda: len(sent) > before)

    with closing(JobManager(url, options=options)) as manager, closing(LoopThread(recorder)) as thread:
        job_id = manager.create_job().job_id
        stream = asyncio.run_coroutine_threadsafe(listen(f"/api/jobs/{job_id}/events"), thread.loop)
        until(lambda: any(b"snapshot" in part for part in sent))
        path = shortest(recorder.record(update) for _ in range(REPEATS))
        stream.cancel()
        thread.run(asyncio.sleep(0.05))
        return path
