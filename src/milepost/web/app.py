"""Create the router and the application, and attach the web interface to an existing application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.routing import compile_path

import milepost
from milepost.core.errors import InvalidInputError, MilepostError
from milepost.manager.sync import get_job_manager
from milepost.settings import settings
from milepost.web import auth as auths
from milepost.web.api import add_routes
from milepost.web.api.health import add_health
from milepost.web.context import WebContext
from milepost.web.dashboard import add_dashboard, add_root_redirect
from milepost.web.http import problems
from milepost.web.http.json_body import read_body
from milepost.web.http.middleware import Compressed
from milepost.web.schemas import problems as documented_errors

_NO_BODY = frozenset({"GET", "HEAD", "OPTIONS"})

DirectHandler = Callable[[Request], Awaitable[Response | None]]


class Route(APIRoute):
    """A route that returns errors as problem documents, limits request bodies, and authenticates before it reads a body.

    FastAPI resolves dependencies after it has parsed the body. So a dependency of the application still runs after that.

    An attribute `direct` of the endpoint is called first. It returns None if the request needs FastAPI's parameter
    resolution.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if not _NO_BODY & set(options.get("methods") or ("GET",)):
            options["responses"] = {**documented_errors(413, 415), **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        general: Callable[[Request], Coroutine[Any, Any, Response]] = super().get_route_handler()
        direct: DirectHandler | None = getattr(self.endpoint, "direct", None)
        marked = [getattr(one.dependency, auths.BEFORE_BODY, None) for one in self.dependencies]
        admit = [one for one in marked if one is not None]

        async def handle(request: Request) -> Response:
            answer = await handled(request)
            answer.headers["X-Content-Type-Options"] = "nosniff"
            return answer

        async def handled(request: Request) -> Response:
            try:
                if direct is not None and (found := await direct(request)) is not None:
                    return found
                if request.method not in _NO_BODY:
                    for enter in admit:
                        await enter(request)
                    request = await read_body(request)
                response = await general(request)
                response.headers.setdefault("Cache-Control", "no-store")
                return response
            except Exception as error:
                answer = problems.response_for(error)
                if answer is None:
                    raise
                return answer

        return handle


def create_router(jobs: Any, *, auth: Any) -> APIRouter:
    """Return the API under ``/api`` as a router for any FastAPI application.

    `jobs` is a `Jobs`, a manager or a store URL. `auth` is `milepost.web.auth.none()`, `.api_keys()` or a FastAPI
    dependency. Raises InvalidInputError for any other `auth`.
    """
    router, _ = make_router(jobs, auth)
    return router


def make_router(jobs: Any, auth: Any) -> tuple[APIRouter, WebContext]:
    """Return the router and its context."""
    context = WebContext(jobs, auths.as_auth(auth))
    router = APIRouter(route_class=Route, lifespan=context.lifespan)
    add_routes(router, context)
    return router, context


def attach(app: FastAPI, jobs: Any, *, auth: Any, dashboard: str = "/jobs") -> WebContext:
    """Add the web interface to an application: ``/api/...``, the dashboard, ``/healthz``, ``/readyz``, ``/metrics``.

    `jobs` and `auth` are as for `create_router`; `dashboard` is the path of the dashboard. Raises InvalidInputError also if
    the application has the interface already, because only the first would handle requests.
    """
    if getattr(app.state, "milepost", None) is not None:
        raise InvalidInputError(
            "app", "already has the web interface; add another one with app.mount('/other', create_app(...))"
        )
    router, context = make_router(jobs, auth)
    _store_context(app, context)
    app.include_router(router)
    _add_pages_and_health(app, context, dashboard)
    return context


def _store_context(app: FastAPI, context: WebContext) -> None:
    """Make the context available to the application, and the caller to its own routes (`Depends(auth.principal)`)."""
    app.state.milepost, context.app = context, app
    if isinstance(context.authenticator.auth, auths.Dependency):
        found = auths.principal_by_dependency(context.authenticator, context.authenticator.auth.dependency)
        app.dependency_overrides[auths.principal] = found


def _add_pages_and_health(app: FastAPI, context: WebContext, dashboard: str) -> None:
    """Add health checks, metrics and the dashboard."""
    health = APIRouter(route_class=Route)
    add_health(health, context)
    app.include_router(health)
    add_dashboard(app, context, dashboard)


def create_app(jobs: Any, *, auth: Any, dashboard: str = "/jobs") -> FastAPI:
    """Return the web interface as an application of its own, for an ASGI server or to mount in another framework.

    `jobs` and `auth` are as for `create_router`; `dashboard` is the path of the dashboard.
    """
    context = WebContext(jobs, auths.as_auth(auth))
    app = FastAPI(
        title="milepost",
        version=milepost.__version__,
        description="Tracked background jobs: records, live streams, access, overview.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=context.lifespan,
    )
    app.router.route_class = Route  # FastAPI matches the routes of an included router twice
    add_routes(app.router, context)
    _add_pages_and_health(app, context, dashboard)
    app.add_middleware(Compressed)
    _store_context(app, context)
    add_root_redirect(app, dashboard)

    async def answer(request: Request, error: Exception) -> Response:
        """Handle exceptions outside our routes. A 405 lists every method of its path, which the framework does not
        know.
        """
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
    """Return the router over `get_job_manager()`. Raises InvalidInputError if MILEPOST_AUTH is not set."""
    return create_router(get_job_manager, auth=auths.auth_from_name(settings.current().auth))
