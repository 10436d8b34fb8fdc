"""The managers' methods over HTTP: `Client`, and `AsyncClient` for event loops."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from milepost.core.errors import MissingExtraError

if TYPE_CHECKING:
    from milepost.client.client import AsyncClient as AsyncClient
    from milepost.client.client import Client as Client
    from milepost.client.decoding import AccessDeniedError as AccessDeniedError

__all__ = ["AccessDeniedError", "AsyncClient", "Client"]

_HOME_OF = {"AccessDeniedError": "decoding", "AsyncClient": "client", "Client": "client"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'milepost.client' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"milepost.client.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name == "httpx":
            raise MissingExtraError("client", "milepost.Client") from error
        raise
    globals()[name] = value
    return value
