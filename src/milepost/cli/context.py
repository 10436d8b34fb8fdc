"""The context of one command: shared options, the selected store or server, and the console."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from milepost.app import AsyncJobs, Jobs
    from milepost.client import Client
    from milepost.core.job import Job
    from milepost.manager.sync import JobManager
    from milepost.settings import Settings
    from milepost.stores.protocol import Store

F = TypeVar("F", bound=Callable[..., Any])


class CommandContext:
    """The shared options, and the manager and console made from them when they are first used."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.utc = False
        self.json = False
        self.capture: str | None = None
        self._manager: JobManager | None = None
        self._store: Store | None = None
        self._settings: Settings | None = None
        self._ttl: float | None = None
        self._console: Console | None = None

    @property
    def target_url(self) -> str:
        """Return the URL of the store or server: --url, MILEPOST_URL, REDIS_URL, or the user's own file."""
        return self._named_url or f"sqlite:///{default_store_path()}"

    @property
    def _named_url(self) -> str:
        named = self.url or os.environ.get("MILEPOST_URL") or os.environ.get("REDIS_URL")
        return named.strip() if named else ""

    @property
    def is_default_store(self) -> bool:
        """Return whether the store is the user's own file because none was named."""
        return self._store is None and not self._named_url

    @property
    def is_server(self) -> bool:
        """Return whether the jobs are on a server."""
        return self._store is None and self.target_url.startswith(("http://", "https://"))

    def with_member_progress(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs. Those that wait for children, and batches, get their progress, which a server sends with the jobs."""
        if self.is_server:
            return list(jobs)
        from milepost.query.member_progress import with_member_progress
        from milepost.stores.sync_bridge import run_sync

        return run_sync(with_member_progress(self.manager.store, jobs))

    def described(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs with what a server adds: pending ones get their start forecasts.

        If the lease of a running job has ended and no process has recovered it, its activity says so. A server would have recovered it.
        """
        if self.is_server:
            return list(jobs)
        from milepost.cli.ended_lease import with_ended_lease

        jobs = [with_ended_lease(job) for job in jobs]
        if not any(job.status == "pending" for job in jobs):
            return jobs
        from milepost.stores.sync_bridge import run_sync
        from milepost.worker.start_forecast import forecast

        known = run_sync(forecast(self.manager.store, jobs))
        return jobs if known is None else [known.describe(job) for job in jobs]

    @property
    def manager(self) -> JobManager:
        """Return the manager of the store or the client of the server, opened at first use."""
        if self._manager is None:
            self._manager = self.open()
        return self._manager

    @property
    def client(self) -> Client:
        """Return the client of the server. Use only with a server."""
        from milepost.client import Client

        assert isinstance(self.manager, Client), "only with a server"
        return self.manager

    @property
    def jobs(self) -> Jobs | Client:
        """Return the object that takes submits and lists types and workers."""
        if self.is_server:
            return self.client
        from milepost.app import Jobs

        return Jobs(self.manager.store, ttl=self.manager.ttl, options=self.manager.settings)

    def set_store(self, app: Jobs | AsyncJobs) -> None:
        """Use the settings and the store of an application instead of those of the environment.

        The option --url overrides its store. A store in memory is not used, because other processes cannot share it.
        """
        self._settings, self._ttl = app.settings, app.ttl
        if self.url is None and app.store.shared:
            self._store = app.store

    def open(self) -> JobManager:
        """Return another manager of the same store, for a thread."""
        target_url = self.target_url
        if self._store is not None:
            from milepost.manager.sync import JobManager

            return JobManager(self._store.with_blocking(blocking=True), ttl=self._ttl, options=self._options())
        if self.is_server:
            from milepost.client import Client
            from milepost.web.security.local_access import token_for

            if os.environ.get("MILEPOST_KEY"):
                return Client(target_url)
            address, token = token_for(target_url)
            return Client(address, key=token)
        from milepost.core.errors import InvalidInputError
        from milepost.manager.sync import JobManager

        self.ensure_default_dir()
        manager = JobManager(target_url, ttl=self._ttl, options=self._options())
        if not manager.store.shared:
            raise InvalidInputError(
                "--url",
                "memory:// cannot be shared between commands; use sqlite:///jobs.db, redis://host or postgresql://host/db",
            )
        return manager

    def _options(self) -> Settings:
        """Return the settings of the application or the environment, with the capture of our own processes."""
        from milepost.settings import settings

        options = self._settings or settings.current()
        capture = self.capture if self.capture is not None else options.capture
        return replace(options, capture=capture if capture is not None else "logging,tqdm,threads")

    def ensure_default_dir(self) -> None:
        """Create the directory of the default store."""
        if self.target_url == f"sqlite:///{default_store_path()}":
            from milepost.stores.private_files import create_private_folder

            create_private_folder(str(default_store_path().parent))

    @property
    def display_url(self) -> str:
        """Return the URL for display, without passwords and with the home directory as ``~``."""
        from milepost.stores.factory import redact_url

        shown = redact_url(self._store.url if self._store is not None else self.target_url).removeprefix("sqlite:///")
        home = str(Path.home())
        return "~" + shown[len(home) :] if shown.startswith(home + os.sep) else shown

    @property
    def console(self) -> Console:
        """Return the console of stdout."""
        if self._console is None:
            from milepost.cli.rendering.terminal import make_console

            self._console = make_console()
        return self._console

    def now(self) -> int:
        """Return the current time in microseconds by the store's clock, or by this machine's with a server."""
        import time

        from milepost.stores.sync_bridge import run_sync

        return time.time_ns() // 1000 if self.is_server else run_sync(self.manager.store.now())

    def close(self) -> None:
        """Close the connections."""
        if self._manager is not None:
            self._manager.close()


def default_store_path() -> Path:
    """Return the path of the user's default store, ``$XDG_STATE_HOME/milepost/jobs.db``."""
    from milepost.settings import state_dir

    return state_dir() / "jobs.db"


def current() -> CommandContext:
    """Return the context of the running command."""
    context = click.get_current_context().find_root().obj
    assert isinstance(context, CommandContext), "run_program puts it there"
    return context


def _store_option(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    context = ctx.find_root().ensure_object(CommandContext)
    if value not in (None, False) and param.name is not None:
        setattr(context, param.name, value)


def session_options(function: F) -> F:
    """Add the shared options --url, --json and --utc, which may stand before or after the command."""
    for option in (
        click.option("--utc", is_flag=True, callback=_store_option, expose_value=False, help="Show times in UTC."),
        click.option(
            "--json",
            is_flag=True,
            callback=_store_option,
            expose_value=False,
            help="Print one JSON line per job or change.",
        ),
        click.option(
            "--url",
            metavar="URL",
            callback=_store_option,
            expose_value=False,
            help="Store (sqlite:///jobs.db, redis://host, postgresql://host/db) or server (http://host).",
        ),
    ):
        function = option(function)
    return function
