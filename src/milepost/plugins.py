"""Find plugins by entry point: stores, commands, job types, API routes, task queues, embedders, document loaders.

What milepost ships is registered in pyproject like any other plugin. `BUILT_IN` repeats those lines, so that a program
that uses only these never reads the metadata of all installed packages.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from milepost.core.errors import PluginError

KINDS: Final = {
    "milepost.stores": "store",
}
"""The groups of entry points, and what an entry of each is called in messages."""

_REDIS: Final = "milepost.stores.redis:RedisStore"
BUILT_IN: Final[dict[str, dict[str, str]]] = {
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
        "memory": "milepost.stores.factory:open_memory_store",
    },
}
"""The plugins in this package, by group and name: ``module:attribute``."""


class Plugin(NamedTuple):
    """A registered name. `distributions` are the installed packages that register it, none for a built-in one."""

    group: str
    name: str
    target: str
    distributions: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import the plugin and return its object.

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
        except Exception as error:
            if not self.distributions:
                raise
            raise self.broken(error) from error
        return found

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


def load_all(group: str) -> Iterator[tuple[str, Any]]:
    """Import all plugins of a group and yield each name with its object. A broken one is logged and left out."""
    import logging

    from milepost.core.errors import PluginError

    for name in names(group):
        plugin = find(group, name)
        assert plugin is not None, "names are those that are found"
        try:
            yield name, plugin.load()
        except PluginError as error:
            logging.getLogger("milepost.plugins").warning("%s", error)


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

    This reads only `entry_points.txt` files, in 2 ms. The import of `importlib.metadata` alone takes 20 times as long.
    """
    for folder in sys.path:
        try:
            with os.scandir(folder or ".") as entries:
                packages = [entry for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except NotADirectoryError:
            return True  # an archive, which only importlib.metadata reads
        except OSError:
            continue
        for package in packages:
            if package.name.startswith(("milepost-", "milepost.")):
                continue
            try:
                with open(os.path.join(package.path, "entry_points.txt"), "rb") as file:
                    if b"[milepost." in file.read():
                        return True
            except OSError:
                continue
    return False
