"""Job types that can run in this process: those of plugins, and those of ``--app MODULE:APP``.

The code of a plugin is imported only when one of its types is used.
"""

from __future__ import annotations

import glob
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from milepost import plugins

if TYPE_CHECKING:
    from milepost.app import AsyncJobs, Jobs
    from milepost.cli.context import CommandContext
    from milepost.worker.handlers import Handler

JOB_TYPES = "milepost.job_types"


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

    Raises UsageError with the known types, PluginError.
    """
    handler = None
    if app is not None:
        jobs = load_app(app)
        context.set_store(jobs)
        handler = jobs.handlers.get(job_type)
    if handler is None:
        plugin = plugins.find(JOB_TYPES, job_type)
        if plugin is None:
            names = dict.fromkeys((*(jobs.handlers if app is not None else ()), *plugins.names(JOB_TYPES)))
            hint = "" if app is not None else "; load your own types with --app MODULE:APP"
            raise click.UsageError(f"unknown job type {job_type!r}; available: {', '.join(names)}{hint}")
        handler = plugin.use(_handler_of)
    known = handler.parameters
    return LocalType(job_type, handler.function, known.schema, known.read, known.secrets)


def _handler_of(plugin: plugins.Plugin, found: Any) -> Handler[Any, Any]:
    """Return the handler of a plugin, which is a decorated or a plain function. Raises PluginError."""
    from milepost.worker.handlers import Handler, TypeOptions

    handler = found if isinstance(found, Handler) else Handler(plugin.name, found, TypeOptions.of())
    if handler.job_type != plugin.name:
        raise plugin.error(f"is a handler of {handler.job_type!r}; it must be registered under that name")
    return handler


def create_jobs(context: CommandContext, app: str | None) -> Jobs:
    """Return the Jobs of an application with its settings and task queue, or one with the types of all plugins.

    The task queue is omitted on another store than the application's, because its workers read only that one.
    """
    from milepost.app import Jobs

    if app is None:
        jobs = Jobs(context.manager.store, options=context.manager.settings)
        for handler in plugins.use_all(JOB_TYPES, _handler_of):
            jobs.handlers.add(handler)
        return jobs
    found = load_app(app)
    context.set_store(found)
    manager = context.manager
    task_queue = found.dispatcher if found.store.url == manager.store.url else None
    return Jobs(
        manager.store, ttl=manager.ttl, options=manager.settings, handlers=found.handlers, task_queue=task_queue
    )


def jobs_for_submit(context: CommandContext, app: str, job_type: str) -> Jobs:
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


def hints(job_type: str, schema: Mapping[str, Any]) -> plugins.CommandLineHints:
    """Return the hints of a plugin's type, and none for an application's own type of the same name."""
    from milepost.worker.parameters import operator_only

    plugin = plugins.find(JOB_TYPES, job_type)
    if plugin is not None:
        handler = plugin.use(_handler_of)
        if bool(operator_only(handler.parameters.schema)) == bool(operator_only(schema)):
            return getattr(handler.function, "command_line_hints", plugins.CommandLineHints())
    return plugins.CommandLineHints()


def absolute_paths(job_type: str, schema: Mapping[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with absolute paths, where the plugin of the type asks for it."""
    given = [name for name in hints(job_type, schema).paths if isinstance(params.get(name), list)]
    return params | {name: [_absolute(os.path.expanduser(path)) for path in params[name]] for name in given}


def refuse_missing_paths(job_type: str, schema: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Raise UsageError if all the paths of a job that runs on this machine are missing: it would only fail."""
    for name in hints(job_type, schema).paths:
        paths = params.get(name)
        if (
            isinstance(paths, list)
            and paths
            and not any(glob.has_magic(path) or os.path.lexists(path) for path in paths)
        ):
            others = f" (nor do the {len(paths) - 1:,} others)" if len(paths) > 1 else ""
            raise click.UsageError(f"{name}: {paths[0]} does not exist{others}; give files, folders or globs")


def _absolute(path: str) -> str:
    if not path:  # e.g. an unset shell variable
        raise click.UsageError("empty path; use . for the current directory")
    if os.path.lexists(path) or not glob.has_magic(path):
        return os.path.abspath(path)
    return os.path.normpath(os.path.join(glob.escape(os.getcwd()), path))  # the directory's name is not a pattern


class TypeName(click.ParamType[str]):
    """A job type, completed with those of plugins and the published ones."""

    name = "type"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the types with this prefix."""
        from milepost.cli.context import CommandContext
        from milepost.core.errors import MilepostError

        names = set(plugins.names(JOB_TYPES))
        try:
            names |= {known.name for known in ctx.find_root().ensure_object(CommandContext).jobs.job_types()}
        except MilepostError:
            pass  # the store is unavailable; offer those of plugins
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
