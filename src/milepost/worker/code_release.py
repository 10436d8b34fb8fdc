"""The release of the user's code that a worker runs, which is kept with each attempt."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

from milepost.settings import Settings
from milepost.worker.handlers import Handler


def code_release(settings: Settings, handlers: Mapping[str, Handler[Any, Any]]) -> str | None:
    """Return MILEPOST_RELEASE, else the version of the first distribution that is named as the package of a handler."""
    if settings.release is not None:
        return settings.release
    packages = dict.fromkeys(handler.function.__module__.partition(".")[0] for handler in handlers.values())
    return next((version for version in map(_version, packages) if version is not None), None)


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        return None
