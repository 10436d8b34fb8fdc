"""HTTP API, live event streams, authentication and dashboard for FastAPI applications.

``router`` is a ready-made router over `get_job_manager()`; it is created on first access.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from milepost.core.errors import MissingExtraError

if TYPE_CHECKING:
    from fastapi import APIRouter

    from milepost.web import auth as auth
    from milepost.web.app import attach as attach
    from milepost.web.app import create_app as create_app
    from milepost.web.app import create_router as create_router
    from milepost.web.security.principals import Principal as Principal
    from milepost.web.server import serve as serve

    router: APIRouter

__all__ = ["Principal", "attach", "auth", "create_app", "create_router", "router", "serve"]

_HOME_OF = {
    "Principal": "security.principals",
    "attach": "app",
    "create_app": "app",
    "create_router": "app",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'milepost.web' has no attribute {name!r}")
    try:
        if name == "auth":
            value: Any = import_module("milepost.web.auth")
        elif name == "router":
            value = import_module("milepost.web.app").module_router()
        else:
            value = getattr(import_module(f"milepost.web.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette", "uvicorn", "pydantic"):
            raise MissingExtraError("web", "the HTTP interface") from error
        raise
    globals()[name] = value
    return value
