"""Find plugins by entry point: stores, commands, job types, API routes, task queues, embedders, document loaders.

What milepost ships is registered in pyproject like any other plugin. `BUILT_IN` repeats those lines, so that a program
that uses only these never reads the metadata of all installed packages.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.core.errors import PluginError

T = TypeVar("T")
F = TypeVar("F")

KINDS: Final = {
    "milepost.commands": "command",
    "milepost.job_types": "job type",
    "milepost.routes": "API routes",
    "milepost.health_checks": "health check",
    "milepost.integrations": "task queue",
    "milepost.embedders": "embedder",
    "milepost.loaders": "document loader",
    "milepost.stores": "store",
}
"""The groups of entry points, and what an entry of each is called in messages."""

_REDIS: Final = "milepost.stores.redis:RedisStore"
_POSTGRES: Final = "milepost.stores.postgres:PostgresStore"
BUILT_IN: Final[dict[str, dict[str, str]]] = {
    "milepost.commands": {
        "run": "milepost.cli.commands.run:run",
        "submit": "milepost.cli.commands.submit:submit",
        "worker": "milepost.cli.commands.worker:worker",
        "serve": "milepost.cli.commands.serve:serve",
        "mcp": "milepost.cli.commands.mcp:mcp",
        "ls": "milepost.cli.commands.ls:ls",
        "show": "milepost.cli.commands.logs:show",
        "watch": "milepost.cli.commands.watch:watch",
        "logs": "milepost.cli.commands.logs:logs",
        "output": "milepost.cli.commands.output:output",
        "failures": "milepost.cli.commands.stats:failures",
        "stats": "milepost.cli.commands.stats:stats",
        "types": "milepost.cli.commands.types:types",
        "workers": "milepost.cli.commands.types:workers",
        "top": "milepost.cli.commands.ls:top",
        "tree": "milepost.cli.commands.tree:tree",
        "cancel": "milepost.cli.commands.manage:cancel",
        "pause": "milepost.cli.commands.manage:pause",
        "resume": "milepost.cli.commands.manage:resume",
        "answer": "milepost.cli.commands.manage:answer",
        "retry": "milepost.cli.commands.manage:retry",
        "rm": "milepost.cli.commands.manage:rm",
        "search": "milepost.documents.commands:search",
        "entities": "milepost.documents.commands:entities",
        "neighbours": "milepost.documents.commands:neighbours",
        "communities": "milepost.documents.commands:communities",
        "draw": "milepost.documents.commands:draw",
        "documents": "milepost.documents.document_commands:documents",
        "doctor": "milepost.cli.commands.maintenance:doctor",
        "migrate": "milepost.cli.commands.maintenance:migrate",
        "purge": "milepost.cli.commands.maintenance:purge",
        "keys": "milepost.cli.commands.keys:keys",
        "limit": "milepost.cli.commands.limit:limit",
        "usage": "milepost.cli.commands.usage:usage",
        "schedule": "milepost.cli.commands.schedule:schedule",
        "completion": "milepost.cli.commands.maintenance:completion",
    },
    "milepost.job_types": {
        "ingestion": "milepost.documents.ingestion:ingestion",
        "extraction": "milepost.documents.extraction:extraction",
        "reindex": "milepost.documents.reindex:reindex",
        "clustering": "milepost.documents.clustering:clustering",
    },
    "milepost.routes": {"documents": "milepost.documents.routes:attach_documents"},
    "milepost.health_checks": {"documents": "milepost.documents.store:check_health"},
    "milepost.integrations": {
        "celery": "milepost.integrations.celery:CeleryTaskQueue",
        "rq": "milepost.integrations.rq:RQTaskQueue",
        "dramatiq": "milepost.integrations.dramatiq:DramatiqTaskQueue",
        "taskiq": "milepost.integrations.taskiq:TaskiqTaskQueue",
        "dask": "milepost.integrations.dask:DaskTaskQueue",
        "ray": "milepost.integrations.ray:RayTaskQueue",
    },
    "milepost.embedders": {
        "minilm": "milepost.documents.embed:open_minilm",
        "wordllama": "milepost.documents.embed:open_wordllama",
        "hashing": "milepost.documents.embed:open_hashing",
        "http": "milepost.documents.embed:open_http",
    },
    "milepost.loaders": {
        "text": "milepost.documents.loaders.text:load_text",
        "markdown": "milepost.documents.loaders.text:load_markdown",
        "csv": "milepost.documents.loaders.text:load_csv",
        "html": "milepost.documents.loaders.html:load_html",
        "pdf": "milepost.documents.loaders.pdf:load_pdf",
        "docx": "milepost.documents.loaders.office:load_docx",
        "epub": "milepost.documents.loaders.html:load_epub",
        "odt": "milepost.documents.loaders.office:load_odt",
        "xlsx": "milepost.documents.loaders.tables_and_slides:load_xlsx",
        "pptx": "milepost.documents.loaders.tables_and_slides:load_pptx",
        "json": "milepost.documents.loaders.structured:load_json",
        "ipynb": "milepost.documents.loaders.structured:load_ipynb",
        "eml": "milepost.documents.loaders.structured:load_eml",
    },
    "milepost.stores": {
        "sqlite": "milepost.stores.sqlite:SQLiteStore",
        "redis": _REDIS,
        "rediss": _REDIS,
        "unix": _REDIS,
        "valkey": _REDIS,
        "redis+sentinel": _REDIS,
        "rediss+sentinel": _REDIS,
        "redis+cluster": _REDIS,
        "rediss+cluster": _REDIS,
        "postgresql": _POSTGRES,
        "postgres": _POSTGRES,
        "memory": "milepost.stores.factory:open_memory_store",
    },
}
"""The plugins in this package, by group and name: ``module:attribute``."""

COMMAND_SUMMARIES: Final[dict[str, dict[str, str]]] = {
    "Run": {
        "run": "Run a job in this process with a progress bar; repeat the command to resume.",
        "submit": "Submit a job to the workers.",
        "worker": "Run submitted jobs: worker MODULE:APP.",
        "serve": "Serve the jobs over HTTP, with the dashboard.",
        "mcp": "Serve the jobs to agents, as MCP tools.",
    },
    "Inspect": {
        "ls": "List jobs; -w follows changes.",
        "show": "Show the details of a job.",
        "watch": "Follow jobs until they end.",
        "logs": "Print the log of a job; -f follows it.",
        "output": "Print the output of a job; -f follows it.",
        "failures": "Group failed jobs by cause.",
        "stats": "Count jobs by type and status, with durations.",
        "usage": "Show what jobs have spent.",
        "types": "List, pause, resume and limit job types.",
        "workers": "List workers and the number of jobs they run.",
        "top": "Show a full-screen live view of jobs.",
        "tree": "Print a job with its children.",
    },
    "Manage": {
        "cancel": "Cancel jobs.",
        "pause": "Suspend jobs until they are resumed.",
        "resume": "Let paused jobs continue.",
        "answer": "Answer a question of a job.",
        "retry": "Return failed or cancelled jobs to pending.",
        "rm": "Delete jobs.",
        "schedule": "Make jobs on a schedule.",
        "limit": "Limit the jobs that run at once.",
    },
    "Documents": {
        "search": "Search the ingested documents.",
        "entities": "List entities found in the documents.",
        "neighbours": "List entities related to an entity.",
        "communities": "List communities.",
        "draw": "Draw the entity graph as SVG.",
        "documents": "Manage the documents, and measure their search.",
    },
    "Maintenance": {
        "doctor": "Check the health of the store.",
        "migrate": "Migrate the store to this release's layout.",
        "purge": "Delete jobs that ended long ago.",
        "keys": "List, create and revoke API keys.",
        "completion": "Print the completion script for bash, zsh or fish.",
    },
}
"""What `milepost --help` lists: the built-in commands by section, because no command is imported for it."""


class CommandLineHints:
    """What the command line does for a job type besides running it.

    `next_steps` are commands that use the result, each with its purpose. `paths` are parameters with lists of paths,
    which are made absolute, because a worker has another working directory.
    """

    def __init__(self, next_steps: tuple[tuple[str, str], ...] = (), paths: tuple[str, ...] = ()) -> None:
        self.next_steps = next_steps
        self.paths = paths


def command_line_hints(*next_steps: tuple[str, str], paths: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Return a decorator that adds hints for the command line to the function of a job type."""

    def add(function: F) -> F:
        function.command_line_hints = CommandLineHints(next_steps, paths)  # type: ignore[attr-defined]
        return function

    return add


def owned_by(label: Callable[[], str | None]) -> Callable[[F], F]:
    """Return a decorator for the function of a job type whose results belong to the value of a label.

    `label` returns its name, or None if the operator has set none. API keys that are bound to this label, and to no other, may
    then submit jobs of the type although it has parameters that only the operator sets.
    """

    def add(function: F) -> F:
        function.owner_label = label  # type: ignore[attr-defined]
        return function

    return add


class Plugin:
    """A registered name. `distributions` are the installed packages that register it, none for a built-in one."""

    def __init__(self, group: str, name: str, target: str, distributions: tuple[str, ...] = ()) -> None:
        self.group = group
        self.name = name
        self.target = target
        self.distributions = distributions

    def load(self) -> Any:
        """Import the plugin and return its object. Raises as `use`."""
        return self.use(lambda _, found: found)

    def use(self, function: Callable[[Plugin, Any], T]) -> T:
        """Import the plugin and return what `function` returns for this plugin and its object.

        Raises PluginError if it is broken or if two packages register the name. Errors of a built-in plugin pass
        through.
        """
        if len(self.distributions) > 1:
            raise self.error(f"is provided by {' and '.join(self.distributions)}; uninstall all but one of them")
        module, _, attributes = self.target.partition(":")
        try:
            found: Any = import_module(module)
            for part in filter(None, attributes.split(".")):
                found = getattr(found, part)
            return function(self, found)
        except Exception as error:
            from milepost.core.errors import PluginError

            if isinstance(error, PluginError) or not self.distributions:
                raise
            raise self.broken(error) from error

    def broken(self, error: BaseException) -> PluginError:
        """Return the error for a plugin that failed with an exception."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        package = self.distributions[0].partition(" ")[0] if self.distributions else "milepost"
        return self.error(f"cannot be loaded: {reason}; run: pip install --upgrade {package}, or uninstall it")

    def error(self, problem: str) -> PluginError:
        """Return an error about this plugin that names its package."""
        from milepost.core.errors import PluginError

        package = f" of {self.distributions[0]}" if len(self.distributions) == 1 else ""
        return PluginError(f"the {KINDS[self.group]} {self.name!r}{package} {problem}")


def names(group: str) -> list[str]:
    """Return the names in a group: the built-in ones, then those of installed packages. No plugin is imported."""
    return [*BUILT_IN[group], *sorted(set(_installed().get(group, {})) - set(BUILT_IN[group]))]


def find(group: str, name: str) -> Plugin | None:
    """Return the plugin of that name, or None. A built-in name cannot be replaced by an installed package."""
    if name in BUILT_IN[group]:
        return Plugin(group, name, BUILT_IN[group][name])
    return _installed().get(group, {}).get(name)


def use_all(group: str, function: Callable[[Plugin, Any], T]) -> list[T]:
    """Import all plugins of a group, and return what `function` returns for each plugin and its object.

    A broken plugin is logged and left out.
    """
    import logging

    from milepost.core.errors import PluginError

    results = []
    for plugin in filter(None, [find(group, name) for name in names(group)]):
        try:
            results.append(plugin.use(function))
        except PluginError as error:
            logging.getLogger("milepost.plugins").warning("%s", error)
    return results


@cache
def _installed() -> dict[str, dict[str, Plugin]]:
    """Return the plugins of other installed packages, by group and name."""
    if not _is_any_declared():
        return {}
    from importlib.metadata import distributions

    found: dict[str, dict[str, Plugin]] = {group: {} for group in KINDS}
    seen = {"milepost"}
    for distribution in distributions():  # in the order of sys.path: the first of a name is the one that is imported
        if "[milepost." not in (distribution.read_text("entry_points.txt") or ""):
            continue
        package = distribution.metadata["Name"]
        if package.lower() in seen:
            continue
        seen.add(package.lower())
        for entry in distribution.entry_points:
            if entry.group in found:
                others = found[entry.group][entry.name].distributions if entry.name in found[entry.group] else ()
                registered = (*others, f"{package} {distribution.version}")
                found[entry.group][entry.name] = Plugin(entry.group, entry.name, entry.value, registered)
    return found


def _is_any_declared() -> bool:
    """Return whether a package other than milepost may declare plugins.

    This reads only `entry_points.txt` files, with 200 packages in 1 ms. `importlib.metadata` takes 40 ms.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except NotADirectoryError:
            return True  # an archive, which only importlib.metadata reads
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")) and not name.startswith(("milepost-", "milepost.egg-info")):
                try:
                    file = os.open(f"{folder or '.'}/{name}/entry_points.txt", os.O_RDONLY)
                except OSError:
                    continue
                text = os.read(file, 16384)
                os.close(file)
                if b"[milepost." in text or len(text) == 16384:
                    return True
    return False
