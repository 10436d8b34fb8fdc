"""Where the program is used in tests: on a SQLite file, on Redis, and on a server. One `Place` is any of the three.

`run`, and what builds on it, goes on in this process: the same function as the program's, without the start of an
interpreter. What needs a terminal or a signal is started as a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import uvicorn

from milepost.app import Jobs
from milepost.cli.program import run_program
from milepost.documents.routes import attach_documents
from milepost.manager.synchronous import JobManager
from milepost.web import auth, create_app
from tests.cli import work
from tests.cli.programs import Program, Started, Terminal
from tests.services import free_port
from tests.waiting import until

STORES = ("sqlite", "redis")
PLACES = (*STORES, "server")
APP = "tests.cli.work:jobs"
"""The jobs that `Place.worker` runs."""

Test = TypeVar("Test", bound=Callable[..., None])
DRIVEN: dict[str, set[str]] = {}
"""Which tests drive a command on every place."""


def drives(*commands: str) -> Callable[[Test], Test]:
    """Say which commands a test drives on every place. The fixture `where` fails a test that does not."""

    def say(test: Test) -> Test:
        for command in commands:
            DRIVEN.setdefault(command, set()).add(test.__name__)
        test.__dict__["drives"] = commands
        return test

    return say


class Place(Program):
    """The program beside a store, or beside a server that has one. `manager` and `worker` are of the store itself."""

    def __init__(self, folder: Path, store: str, **environment: str) -> None:
        super().__init__(folder, MILEPOST_URL=store, **environment)
        self.store = store
        self.documents = folder / "documents.db"
        """The document store: of the server where there is one, else of the user."""
        self.environment["MILEPOST_DOCUMENTS"] = str(self.documents)
        self.called: list[tuple[str, ...]] = []

    @property
    def is_server(self) -> bool:
        """Whether a server is asked."""
        return self.environment["MILEPOST_URL"] != self.store

    def run(self, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in this process, as in a pipe."""
        self.called.append(words)
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with (
            patch.dict(os.environ, {**self.environment, **environment}, clear=True),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = run_program(list(words))
            except SystemExit as end:  # so does what completes words
                code = int(end.code or 0)
        said = [stream.detach().getvalue().decode() for stream in (out, err)]
        return subprocess.CompletedProcess(words, code, *said)

    def start(self, *words: str, **environment: str) -> Started:
        """Start a command in a pipe, as a process of its own."""
        self.called.append(words)
        return super().start(*words, **environment)

    def on_terminal(self, *words: str, columns: int = 100, lines: int = 30, **environment: str) -> Terminal:
        """Start a command on a terminal of its own."""
        self.called.append(words)
        return super().on_terminal(*words, columns=columns, lines=lines, **environment)

    @contextlib.contextmanager
    def manager(self) -> Iterator[JobManager]:
        """The manager of the store, for what others would have done before."""
        with patch.dict(os.environ, self.environment):
            manager = JobManager(self.store)
        try:
            yield manager
        finally:
            manager.close()

    def fill(self, job_id: str, status: str | None) -> None:
        """Record a job as its caller would."""
        with self.manager() as manager:
            manager.create_job(job_id, "generic", {"title": f"title of {job_id}"}, labels={"owner": "ana"})
            if status is not None:
                manager.update_job(job_id, status=status, progress=0.47, message=f"message of {job_id}")

    @contextlib.contextmanager
    def worker(self) -> Iterator[None]:
        """A worker of the store, in threads of this process."""
        with self.manager() as manager:
            jobs = Jobs(manager.store, options=manager.settings)
            for handler in work.jobs.handlers.values():
                jobs.handlers.add(handler)
            with jobs.running():
                until(jobs.workers)
                yield

    @contextlib.contextmanager
    def served(self, access: auth.Auth | None = None) -> Iterator[None]:
        """Ask a server of the store, in a thread of this process, rather than the store."""
        port = free_port()
        with patch.dict(os.environ, self.environment):
            app = create_app(self.store, auth=access or auth.none())
            attach_documents(app, database=str(self.documents))
            server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="on"))
            thread = threading.Thread(target=server.run, name="server")
            thread.start()
            until(lambda: server.started or not thread.is_alive())
        self.environment["MILEPOST_URL"] = f"http://127.0.0.1:{port}"
        del self.environment["MILEPOST_DOCUMENTS"]
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()
