"""The managers' methods over HTTP: `Client`, and `AsyncClient` for event loops."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from milepost.core.errors import MissingExtra

if TYPE_CHECKING:
    from milepost.client.answers import AccessDenied as AccessDenied
    from milepost.client.asynchronous import AsyncClient as AsyncClient
    from milepost.client.synchronous import Client as Client

__all__ = ["AccessDenied", "AsyncClient", "Client"]

_HOME_OF = {"AccessDenied": "answers", "AsyncClient": "asynchronous", "Client": "synchronous"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'milepost.client' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"milepost.client.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name == "httpx":
            raise MissingExtra("client", "milepost.Client") from error
        raise
    globals()[name] = value
    return value
