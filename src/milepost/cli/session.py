"""One call of the command line: which store or server it talks to, and how it answers. Owns the options that all
commands share and the default store; opens a manager only when a command asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from milepost.app import Jobs
    from milepost.client import Client
    from milepost.core.job import Job
    from milepost.manager.synchronous import JobManager
    from milepost.stores.protocol import Store

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """What the shared options say, and the manager and the console that come of them."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.utc = False
        self.json = False
        self._manager: JobManager | None = None
        self._store: Store | None = None
        self._console: Console | None = None

    @property
    def place(self) -> str:
        """The URL of the store or server: --url, else MILEPOST_URL, else REDIS_URL, else the user's own file."""
        named = self.url or os.environ.get("MILEPOST_URL") or os.environ.get("REDIS_URL")
        return named.strip() if named and named.strip() else f"sqlite:///{default_file()}"

    @property
    def is_server(self) -> bool:
        """Whether the jobs are behind a server."""
        return self._store is None and self.place.startswith(("http://", "https://"))

    def with_starts(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs; those that wait for a worker with when they are expected to start. A server tells it of one job."""
        if not any(job.status == "pending" for job in jobs):
            return list(jobs)
        if self.is_server:
            return [self.manager.get_job(job.job_id) or job for job in jobs] if len(jobs) == 1 else list(jobs)
        from milepost.stores.driving import drive
        from milepost.worker.expected import expected_starts, told

        starts = drive(expected_starts(self.manager.store, jobs))
        return [told(job, starts) for job in jobs]

    @property
    def manager(self) -> JobManager:
        """The manager of the store, or the client of the server; opened at first use."""
        if self._manager is None:
            self._manager = self.open()
        return self._manager

    @property
    def client(self) -> Client:
        """The client of the server; only beside one."""
        from milepost.client import Client

        assert isinstance(self.manager, Client), "asked beside a server only"
        return self.manager

    @property
    def jobs(self) -> Jobs | Client:
        """What takes submits and knows types and workers."""
        if self.is_server:
            return self.client
        from milepost.app import Jobs

        return Jobs(self.manager.store, options=self.manager.settings)

    def use(self, app: Any) -> None:
        """Go to the store that an application names; --url comes before, and one in memory is none to share."""
        store: Store | None = getattr(app, "store", None)
        if self.url is None and store is not None and not store.url.startswith("memory:"):
            self._store = store

    def open(self) -> JobManager:
        """Another manager of the same place, for a thread of its own."""
        place = self.place
        if self._store is not None:
            from milepost.manager.synchronous import JobManager

            return JobManager(self._store.twin(blocking=True))
        if self.is_server:
            from milepost.client import Client

            return Client(place)
        from milepost.core.errors import InvalidInput
        from milepost.manager.synchronous import JobManager

        if place.startswith("memory:"):
            raise InvalidInput("--url", "jobs in memory end with this command; use sqlite:///jobs.db or redis://host")
        self.prepare()
        return JobManager(place)

    def prepare(self) -> None:
        """Make the folder of the default store."""
        if self.place == f"sqlite:///{default_file()}":
            default_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def shown_place(self) -> str:
        """Where the jobs are, for people: no passwords, and the home folder as ``~``."""
        from milepost.stores.opening import hidden

        shown = hidden(self._store.url if self._store is not None else self.place).removeprefix("sqlite:///")
        home = str(Path.home())
        return "~" + shown[len(home) :] if shown.startswith(home + os.sep) else shown

    @property
    def console(self) -> Console:
        """The terminal, or the pipe, that answers go to."""
        if self._console is None:
            from milepost.cli.drawing.console import make_console

            self._console = make_console()
        return self._console

    def now(self) -> int:
        """The clock that filters count from, in microseconds: the store's, or this machine's beside a server."""
        import time

        from milepost.stores.driving import drive

        return time.time_ns() // 1000 if self.is_server else drive(self.manager.store.now())

    def close(self) -> None:
        """Give back connections."""
        if self._manager is not None:
            self._manager.close()


def default_file() -> Path:
    """The jobs of this user on this machine: ``$XDG_STATE_HOME/milepost/jobs.db``."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "milepost" / "jobs.db"


def current() -> Session:
    """The session of the command that is being run."""
    session = click.get_current_context().find_root().obj
    assert isinstance(session, Session), "run_program puts it there"
    return session


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    session = ctx.find_root().ensure_object(Session)
    if value not in (None, False) and param.name is not None:
        setattr(session, param.name, value)


def session_options(function: F) -> F:
    """Give a command the options that all have: --url, --json, --utc. They may stand before or after its name."""
    for option in (
        click.option("--utc", is_flag=True, callback=_keep, expose_value=False, help="Show times in UTC."),
        click.option(
            "--json", is_flag=True, callback=_keep, expose_value=False, help="One JSON line for each job or change."
        ),
        click.option(
            "--url",
            metavar="URL",
            callback=_keep,
            expose_value=False,
            help="Store (sqlite:///jobs.db, redis://host) or server (http://host).",
        ),
    ):
        function = option(function)
    return function
