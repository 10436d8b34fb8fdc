"""The router, the application, and how the interface comes into somebody's own. Owns the order of things; the calls are
in `routes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import fastapi.routing
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.routing import compile_path

import milepost
from milepost.core.errors import InvalidInput, MilepostError
from milepost.manager.synchronous import get_job_manager
from milepost.settings import settings
from milepost.web import auth as auths
from milepost.web import problems
from milepost.web.bodies import read_body
from milepost.web.hosts import LocalHosts
from milepost.web.models import problems as documented_errors
from milepost.web.pages import add_home, add_pages
from milepost.web.routes import add_routes
from milepost.web.routes.health import add_health
from milepost.web.site import Site

_NO_BODY = frozenset({"GET", "HEAD", "OPTIONS"})

Direct = Callable[[Request], Awaitable[Response]]


class Route(APIRoute):
    """A route whose errors are problem documents and whose bodies are bounded.

    An endpoint with an attribute `direct` is answered by that, past FastAPI's resolving of parameters, where nothing but
    our own gate stands before it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if not _NO_BODY & set(options.get("methods") or ("GET",)):
            options["responses"] = {**documented_errors(413, 415), **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        general: Callable[[Request], Coroutine[Any, Any, Response]] = super().get_route_handler()
        direct: Direct | None = getattr(self.endpoint, "direct", None) if self._alone() else None

        async def handle(request: Request) -> Response:
            try:
                if direct is not None:
                    return await direct(request)
                if request.method not in _NO_BODY:
                    await read_body(request)
                response = await general(request)
                response.headers.setdefault("Cache-Control", "no-store")
                return response
            except Exception as error:
                answer = problems.of(error)
                if answer is None:
                    raise
                return answer

        return handle

    def _alone(self) -> bool:
        """Whether no dependency was added by those who included the router: those must run.

        Where this cannot be known the answer is no, and the route takes FastAPI's own way.
        """
        context = getattr(fastapi.routing, "_effective_route_context_var", None)
        if context is not None:
            effective = context.get()
            found = effective if effective is not None else self
        elif hasattr(fastapi.routing, "_IncludedRouter"):
            return False
        else:
            found = self  # earlier releases make the route anew for each inclusion
        return len(getattr(found, "dependencies", ())) == 1


def create_router(jobs: Any, *, auth: Any) -> APIRouter:
    """The interface as a router for any FastAPI application: everything under ``/api``.

    `jobs` is a `Jobs`, a manager of either kind, or a URL. `auth` is `milepost.web.auth.none()`, `.api_keys()` or any
    FastAPI dependency.
    """
    router, _ = make_router(jobs, auth)
    return router


def make_router(jobs: Any, auth: Any) -> tuple[APIRouter, Site]:
    """The router and what stands behind it."""
    site = Site(jobs, auths.as_auth(auth))
    router = APIRouter(route_class=Route, lifespan=site.lifespan)
    add_routes(router, site)
    return router, site


def attach(app: FastAPI, jobs: Any, *, auth: Any, dashboard: str = "/jobs") -> Site:
    """Add the interface to an application: ``/api/...``, the dashboard, ``/healthz``, ``/readyz``, ``/metrics``.

    Raises InvalidInput for an application that has it already: the first would answer the calls of the second.
    """
    if getattr(app.state, "milepost", None) is not None:
        raise InvalidInput("app", "has the interface already; app.mount('/other', create_app(...)) adds another one")
    router, site = make_router(jobs, auth)
    app.state.milepost = site
    app.include_router(router)
    _add_surroundings(app, site, dashboard)
    return site


def _add_surroundings(app: FastAPI, site: Site, dashboard: str) -> None:
    """What an application has beside the interface."""
    health = APIRouter(route_class=Route)
    add_health(health, site)
    app.include_router(health)
    add_pages(app, site, dashboard)


def create_app(jobs: Any, *, auth: Any, dashboard: str = "/jobs", local_only: bool = False) -> FastAPI:
    """The interface as an application of its own, for any ASGI server, or to be mounted in another framework.

    `local_only` answers only requests that name this machine as their host: without keys a page of another site could
    otherwise reach the server through a name of its own that points here (DNS rebinding).
    """
    site = Site(jobs, auths.as_auth(auth))
    app = FastAPI(
        title="milepost",
        version=milepost.__version__,
        description="Tracked background jobs: records, live streams, access, overview.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=site.lifespan,
    )
    app.router.route_class = Route  # routes of its own: FastAPI looks twice for those of a router that is included
    add_routes(app.router, site)
    _add_surroundings(app, site, dashboard)
    if local_only:
        app.add_middleware(LocalHosts)
    app.state.milepost = site
    add_home(app, dashboard)

    async def answer(request: Request, error: Exception) -> Response:
        """An error of no route of ours; a 405 names every method of its path, which the framework does not know."""
        if isinstance(error, StarletteHTTPException) and error.status_code == 405:
            path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
            paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
            fitting = [path] if path in paths else [
                template for template in paths
                if compile_path(template.replace("{job_type}", "{job_type:path}"))[0].match(path)
            ]  # fmt: skip
            allowed = {method.upper() for template in fitting for method in paths[template]}
            if allowed:
                error.headers = {"Allow": ", ".join(sorted(allowed))}
        return await problems.on_http_exception(request, error)

    for kind in (StarletteHTTPException, RequestValidationError, MilepostError):
        app.add_exception_handler(kind, answer)
    return app


def module_router() -> APIRouter:
    """The original's module router, over `get_job_manager()`. Raises InvalidInput when MILEPOST_AUTH does not say who may."""
    return create_router(get_job_manager, auth=auths.named_auth(settings.current().auth))
