"""Which code a job type has when it runs in this process: milepost's own types, and those of ``--app MODULE:APP``.

Owns the table of built-in types; imports a type's code only when that type is asked for.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import click

BUILT_IN: Final = {
    "ingestion": ("milepost.documents.ingestion", "ingestion", "documents"),
    "extraction": ("milepost.documents.extraction", "extraction", "documents"),
    "reindex": ("milepost.documents.reindex", "reindex", "documents"),
    "clustering": ("milepost.documents.clustering", "clustering", "documents"),
}
"""Job type -> module, function, extra."""

NEXT_STEPS: Final = {
    "ingestion": ('milepost search "..."', "ask the documents something"),
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


def find_type(job_type: str, app: str | None = None) -> LocalType:
    """The type of a name. Raises UsageError with those that there are, MissingExtra for a built-in one without its extra."""
    from milepost.core.errors import MissingExtra
    from milepost.worker.parameters import parameters_of

    if app is not None:
        handlers = load_app(app).handlers
        if job_type in handlers:
            handler = handlers[job_type]
            known = handler.parameters
            return LocalType(job_type, handler.function, known.schema, known.read, known.secrets)
    if job_type not in BUILT_IN or find_spec(BUILT_IN[job_type][0]) is None:
        names = [name for name, (module, _, _) in BUILT_IN.items() if find_spec(module) is not None]
        if app is not None:
            names = [*load_app(app).handlers, *names]
        hint = "" if app is not None else "; your own are found with --app MODULE:APP"
        raise click.UsageError(f"no job type {job_type!r} here: there are {', '.join(names)}{hint}")
    module, name, extra = BUILT_IN[job_type]
    try:
        function = getattr(import_module(module), name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtra(extra, f"the job type {job_type!r}") from missing
    function = getattr(function, "function", function)
    parameters = parameters_of(function)
    return LocalType(job_type, function, parameters.schema, parameters.read, parameters.secrets)


def load_app(app: str) -> Any:
    """The Jobs of ``module:name`` (default name: ``jobs``); the current folder is looked in first."""
    module, _, name = app.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
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
