"""The HTTP interface: a FastAPI router, live streams, access, the dashboard.

``router`` is the original's module router over `get_job_manager()`, made when it is first imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from milepost.core.errors import MissingExtra

if TYPE_CHECKING:
    from fastapi import APIRouter

    from milepost.web import auth as auth
    from milepost.web.principals import Principal as Principal
    from milepost.web.routing import attach as attach
    from milepost.web.routing import create_app as create_app
    from milepost.web.routing import create_router as create_router
    from milepost.web.serving import serve as serve

    router: APIRouter

__all__ = ["Principal", "attach", "auth", "create_app", "create_router", "router", "serve"]

_HOME_OF = {
    "Principal": "principals",
    "attach": "routing",
    "create_app": "routing",
    "create_router": "routing",
    "serve": "serving",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'milepost.web' has no attribute {name!r}")
    try:
        if name == "auth":
            value: Any = import_module("milepost.web.auth")
        elif name == "router":
            value = import_module("milepost.web.routing").module_router()
        else:
            value = getattr(import_module(f"milepost.web.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette", "uvicorn", "pydantic"):
            raise MissingExtra("web", "the HTTP interface") from error
        raise
    globals()[name] = value
    return value
