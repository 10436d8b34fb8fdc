"""The stores of the command line's tests: a SQLite file, Redis, and a server. A `StoreFixture` is one of them.

Its `run` calls the program's function in this process, to save the start of an interpreter. Commands that need a
terminal or a signal are started as subprocesses.
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

import click
import uvicorn

from milepost.app import Jobs
from milepost.cli.root_command import run_program
from milepost.documents.routes import attach_documents
from milepost.manager.sync import JobManager
from milepost.web import auth, create_app
from tests.cli import sample_app
from tests.cli.subprocesses import CommandRunner, RunningCommand, Terminal
from tests.services import free_port
from tests.waiting import until

STORES = ("sqlite", "redis")
STORE_KINDS = (*STORES, "server")
APP = "tests.cli.sample_app:jobs"
"""The application that `StoreFixture.worker` runs."""

Test = TypeVar("Test", bound=Callable[..., None])
COVERED: dict[str, set[str]] = {}
"""The commands with a test on every kind of store."""


def covers(*commands: str) -> Callable[[Test], Test]:
    """Declare the commands that a test covers on every kind of store. The fixture `where` fails a test that does not."""

    def echo(test: Test) -> Test:
        for command in commands:
            COVERED.setdefault(command, set()).add(test.__name__)
        test.__dict__["covers"] = commands
        return test

    return echo


def commands(group: click.Group, *path: str) -> Iterator[str]:
    """Yield the commands of a group and of its subgroups, as a user types them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield " ".join((*path, name))
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


class StoreFixture(CommandRunner):
    """The command with a store, or with a server of it. `manager` and `worker` use the store directly."""

    def __init__(self, folder: Path, store: str, **environment: str) -> None:
        super().__init__(folder, MILEPOST_URL=store, **environment)
        self.store = store
        self.documents = folder / "documents.db"
        """Return the document store of the server, or of the user without a server."""
        self.environment["MILEPOST_DOCUMENTS"] = str(self.documents)
        self.called: list[tuple[str, ...]] = []

    @property
    def is_server(self) -> bool:
        """Return whether commands use a server."""
        return self.environment["MILEPOST_URL"] != self.store

    def run(self, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in this process, with pipes."""
        self.called.append(words)
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with (
            patch.dict(os.environ, {**self.environment, **environment}, clear=True),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            sys.modules.pop(sample_app.__name__, None)  # an application reads the environment when it is imported
            try:
                code = run_program(list(words))
            except SystemExit as end:  # so does what completes words
                code = int(end.code or 0)
        said = [stream.detach().getvalue().decode() for stream in (out, err)]
        return subprocess.CompletedProcess(words, code, *said)

    def start(self, *words: str, **environment: str) -> RunningCommand:
        """Start a command as a subprocess with pipes."""
        self.called.append(words)
        return super().start(*words, **environment)

    def on_terminal(self, *words: str, columns: int = 100, lines: int = 30, **environment: str) -> Terminal:
        """Start a command on its own terminal."""
        self.called.append(words)
        return super().on_terminal(*words, columns=columns, lines=lines, **environment)

    @contextlib.contextmanager
    def manager(self) -> Iterator[JobManager]:
        """Yield a manager of the store, to set up jobs."""
        with patch.dict(os.environ, self.environment):
            manager = JobManager(self.store)
        try:
            yield manager
        finally:
            manager.close()

    def fill(self, job_id: str, status: str | None) -> None:
        """Create a job as its caller would."""
        with self.manager() as manager:
            manager.create_job(job_id, "generic", {"title": f"title of {job_id}"}, labels={"owner": "ana"})
            if status is not None:
                manager.update_job(job_id, status=status, progress=0.47, message=f"message of {job_id}")

    @contextlib.contextmanager
    def worker(self) -> Iterator[None]:
        """Run a worker of the store in threads of this process."""
        with self.manager() as manager:
            jobs = Jobs(manager.store, options=manager.settings)
            for handler in sample_app.jobs.handlers.values():
                jobs.handlers.add(handler)
            with jobs.run_workers():
                until(jobs.workers)
                yield

    @contextlib.contextmanager
    def served(self, access: auth.Auth | None = None) -> Iterator[None]:
        """Use a server of the store, run in a thread of this process."""
        port = free_port()
        with patch.dict(os.environ, self.environment):
            app = create_app(self.store, auth=access or auth.none())
            attach_documents(app, database=str(self.documents))
            server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="on"))
            thread = threading.Thread(target=server.run, name="server")
            thread.start()
            until(lambda: server.started or not thread.is_alive())
        self.environment["MILEPOST_URL"] = f"http://127.0.0.1:{port}"
        self.environment.pop("MILEPOST_DOCUMENTS", None)
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()
