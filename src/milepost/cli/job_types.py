"""Job types that can run in this process: the built-in ones, and those of ``--app MODULE:APP``.

The code of a built-in type is imported only when the type is used.
"""

from __future__ import annotations

import glob
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from milepost.app import AsyncJobs, Jobs
    from milepost.cli.context import CommandContext

BUILT_IN: Final = ("ingestion", "extraction", "reindex", "clustering")
"""The types of `milepost.documents`: modules with a function of the same name."""

NEXT_STEPS: Final = {
    "ingestion": [
        ('milepost search "..."', "search the documents"),
        ("milepost run extraction", "extract entities"),
    ],
    "extraction": [
        ("milepost entities", "list the entities"),
        ("milepost neighbours NAME", "list entities related to one"),
        ("milepost run clustering", "find communities of entities"),
    ],
    "reindex": [('milepost search "..."', "search the documents")],
    "clustering": [
        ("milepost communities --level 0", "list the finest communities"),
        ("milepost draw entities.svg", "draw the entity graph"),
    ],
}


@dataclass(frozen=True, slots=True)
class LocalType:
    """A job type whose code can run in this process."""

    job_type: str
    function: Callable[..., Any]
    schema: dict[str, Any]
    read: Callable[[dict[str, Any]], dict[str, Any]]
    """Converts JSON parameters to the arguments of the function."""
    secrets: tuple[str, ...] = ()

    @property
    def is_async(self) -> bool:
        """Return whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)


def find_type(context: CommandContext, job_type: str, app: str | None = None) -> LocalType:
    """Return a job type; its application may select the store.

    Raises UsageError with the known types, MissingExtraError.
    """
    from milepost.core.errors import MissingExtraError
    from milepost.worker.parameters import parameters_of

    if app is not None:
        jobs = load_app(app)
        handlers = jobs.handlers
        context.set_store(jobs)
        if job_type in handlers:
            handler = handlers[job_type]
            known = handler.parameters
            return LocalType(job_type, handler.function, known.schema, known.read, known.secrets)
    if job_type not in BUILT_IN:
        names = [*(load_app(app).handlers if app is not None else ()), *BUILT_IN]
        hint = "" if app is not None else "; load your own types with --app MODULE:APP"
        raise click.UsageError(f"unknown job type {job_type!r}; available: {', '.join(names)}{hint}")
    try:
        function = getattr(import_module(f"milepost.documents.{job_type}"), job_type)
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtraError("documents", f"the job type {job_type!r}") from missing
    function = getattr(function, "function", function)
    parameters = parameters_of(function)
    return LocalType(job_type, function, parameters.schema, parameters.read, parameters.secrets)


def built_in_jobs() -> dict[str, Callable[..., Any]]:
    """Return the functions of the built-in types. Raises MissingExtraError."""
    from milepost.core.errors import MissingExtraError

    try:
        from milepost.documents.jobs import HANDLERS
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtraError("documents", "the built-in job types") from missing
    return HANDLERS


def create_jobs(context: CommandContext, app: str | None) -> Jobs:
    """Return the Jobs of an application with its settings and task queue, or one with the built-in types.

    The task queue is omitted on another store than the application's, because its workers read only that one.
    """
    from milepost.app import Jobs

    if app is None:
        jobs = Jobs(context.manager.store, options=context.manager.settings)
        for name, function in built_in_jobs().items():
            jobs.job(name)(function)
        return jobs
    found = load_app(app)
    context.set_store(found)
    manager = context.manager
    task_queue = found.dispatcher if found.store.url == manager.store.url else None
    jobs = Jobs(manager.store, ttl=manager.ttl, options=manager.settings, task_queue=task_queue)
    for handler in found.handlers.values():
        jobs.handlers.add(handler)
    return jobs


def submit_span(context: CommandContext, app: str, job_type: str) -> Jobs:
    """Return the Jobs to submit to. Raises UsageError if the task queue of the type uses another store."""
    jobs, found = create_jobs(context, app), load_app(app)
    if found.dispatcher is not None and jobs.dispatcher is None and job_type in found.handlers:
        name = found.dispatcher.task_queue.name
        raise click.UsageError(f"--url: {name} workers only use the store of the application; omit --url")
    return jobs


def load_app(app: str) -> Jobs | AsyncJobs:
    """Return the Jobs of ``module:name`` (default name: ``jobs``). The current directory comes first in the path."""
    from milepost.app import AsyncJobs, Jobs

    module, _, name = app.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not module or module.startswith("."):
        raise click.UsageError(f"{module!r} is not a module name; use MODULE:APP, e.g. myapp:jobs")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or not (module == missing.name or module.startswith(missing.name + ".")):
            raise
        raise click.UsageError(f"no module named {module!r}; use MODULE:APP, e.g. myapp:jobs") from None
    for part in (name or "jobs").split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Jobs | AsyncJobs):
        raise click.UsageError(f"{module}:{name or 'jobs'} is not a Jobs object; use MODULE:APP, e.g. myapp:jobs")
    return found


def is_built_in(job_type: str, schema: Mapping[str, Any]) -> bool:
    """Return whether a type is a built-in one, and not an application's own type of the same name."""
    from milepost.worker.parameters import operator_only

    return job_type in BUILT_IN and bool(operator_only(schema))


def next_steps(job_type: str, schema: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the commands that use the result of a built-in type, each with its purpose."""
    return tuple(NEXT_STEPS.get(job_type, ())) if is_built_in(job_type, schema) else ()


def absolute_paths(job_type: str, schema: Mapping[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with absolute `paths`, for the built-in types."""
    if is_built_in(job_type, schema) and isinstance(params.get("paths"), list):
        return {**params, "paths": [_absolute(os.path.expanduser(path)) for path in params["paths"]]}
    return params


def _absolute(path: str) -> str:
    if not path:  # e.g. an unset shell variable
        raise click.UsageError("empty path; use . for the current directory")
    if os.path.lexists(path) or not glob.has_magic(path):
        return os.path.abspath(path)
    return os.path.normpath(os.path.join(glob.escape(os.getcwd()), path))  # the directory's name is not a pattern


class TypeName(click.ParamType[str]):
    """A job type, completed with the built-in and the published types."""

    name = "type"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the types with this prefix."""
        from milepost.cli.context import CommandContext
        from milepost.core.errors import MilepostError

        names = set(BUILT_IN)
        try:
            names |= {known.name for known in ctx.find_root().ensure_object(CommandContext).jobs.job_types()}
        except MilepostError:
            pass  # the store is unavailable; offer the built-in types
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
