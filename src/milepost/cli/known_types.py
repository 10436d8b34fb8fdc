"""Which code a job type has when it runs in this process: milepost's own types, and those of ``--app MODULE:APP``.

Owns the table of built-in types; imports a type's code only when that type is asked for.
"""

from __future__ import annotations

import glob
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from milepost.app import Jobs
    from milepost.cli.session import Session

BUILT_IN: Final = ("ingestion", "extraction", "reindex", "clustering")
"""The types of `milepost.documents`: each a module there, with a function of its name."""

NEXT_STEPS: Final = {
    "ingestion": [
        ('milepost search "..."', "ask the documents something"),
        ("milepost run extraction", "find what they speak of"),
    ],
    "extraction": [
        ("milepost entities", "what the documents speak of"),
        ("milepost neighbours NAME", "what it is related to"),
        ("milepost run clustering", "find what belongs together"),
    ],
    "reindex": [('milepost search "..."', "ask the documents something")],
    "clustering": [
        ("milepost communities --level 0", "what belongs together, as fine as it was found"),
        ("milepost draw entities.svg", "a picture of it"),
    ],
}


@dataclass(frozen=True, slots=True)
class LocalType:
    """A job type whose code can run here."""

    job_type: str
    function: Callable[..., Any]
    schema: dict[str, Any]
    read: Callable[[dict[str, Any]], dict[str, Any]]
    """From plain parameters to those that the function takes."""
    secrets: tuple[str, ...] = ()

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)


def find_type(session: Session, job_type: str, app: str | None = None) -> LocalType:
    """The type of a name, whose application may name the store. Raises UsageError with those that there are, MissingExtra for a built-in one without its extra."""
    from milepost.core.errors import MissingExtra
    from milepost.worker.parameters import parameters_of

    if app is not None:
        jobs = load_app(app)
        handlers = jobs.handlers
        session.use(jobs)
        if job_type in handlers:
            handler = handlers[job_type]
            known = handler.parameters
            return LocalType(job_type, handler.function, known.schema, known.read, known.secrets)
    if job_type not in BUILT_IN:
        names = [*(load_app(app).handlers if app is not None else ()), *BUILT_IN]
        hint = "" if app is not None else "; your own are found with --app MODULE:APP"
        raise click.UsageError(f"no job type {job_type!r} here: there are {', '.join(names)}{hint}")
    try:
        function = getattr(import_module(f"milepost.documents.{job_type}"), job_type)
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtra("documents", f"the job type {job_type!r}") from missing
    function = getattr(function, "function", function)
    parameters = parameters_of(function)
    return LocalType(job_type, function, parameters.schema, parameters.read, parameters.secrets)


def built_in_jobs() -> dict[str, Callable[..., Any]]:
    """The functions of milepost's own types. Raises MissingExtra."""
    from milepost.core.errors import MissingExtra

    try:
        from milepost.documents.jobs import HANDLERS
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtra("documents", "milepost's own job types") from missing
    return HANDLERS


def application(session: Session, app: str | None) -> Jobs:
    """The Jobs to work for or to submit to: an application's handlers, or milepost's own, on the session's store."""
    from milepost.app import Jobs

    found = load_app(app) if app is not None else None
    if found is not None:
        session.use(found)
    jobs = Jobs(session.manager.store, options=session.manager.settings)
    if found is None:
        for name, function in built_in_jobs().items():
            jobs.job(name)(function)
    else:
        for handler in found.handlers.values():
            jobs.handlers.add(handler)
    return jobs


def load_app(app: str) -> Any:
    """The Jobs of ``module:name`` (default name: ``jobs``); the current folder is looked in first."""
    module, _, name = app.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not module or module.startswith("."):
        raise click.UsageError(f"{module!r} is not the name of a module; write MODULE:APP, as in myapp:jobs")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or not (module == missing.name or module.startswith(missing.name + ".")):
            raise
        raise click.UsageError(f"there is no module {module!r}; write MODULE:APP, as in myapp:jobs") from None
    for part in (name or "jobs").split("."):
        found = getattr(found, part, None)
    if found is None or not hasattr(found, "handlers"):
        raise click.UsageError(f"{module}:{name or 'jobs'} is not a Jobs object; write MODULE:APP, as in myapp:jobs")
    return found


def absolute_paths(job_type: str, params: dict[str, Any]) -> dict[str, Any]:
    """The same files whatever folder they are named from: for milepost's own types, which take `paths`."""
    if job_type in BUILT_IN and isinstance(params.get("paths"), list):
        return {**params, "paths": [_absolute(os.path.expanduser(path)) for path in params["paths"]]}
    return params


def _absolute(path: str) -> str:
    if not path:  # such as a variable of the shell that is not set
        raise click.UsageError("an empty path names nothing; this folder is .")
    if os.path.lexists(path) or not glob.has_magic(path):
        return os.path.abspath(path)
    return os.path.normpath(os.path.join(glob.escape(os.getcwd()), path))  # the folder's own name is no pattern


class TypeName(click.ParamType[str]):
    """The name of a job type, completed with milepost's own and those that workers have published."""

    name = "type"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Types that begin with what was typed."""
        from milepost.cli.session import Session
        from milepost.core.errors import MilepostError

        names = set(BUILT_IN)
        try:
            names |= {known.name for known in ctx.find_root().ensure_object(Session).jobs.job_types()}
        except MilepostError:
            pass  # the store cannot be asked; what is built in is known anyway
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
