"""Serve the dashboard's static files with strict security headers, and its index page with a relative path to the API."""

from __future__ import annotations

from mimetypes import guess_type
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route as PlainRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from milepost.web.context import WebContext
from milepost.web.http.middleware import Compressed
from milepost.web.http.problems import response

STATIC = Path(__file__).parent / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
API_PLACEHOLDER = "%API%"
_NOT_BUILT_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>milepost</title>"
    "<h1>milepost</h1><p>The dashboard is not built; in a checkout, <code>make static</code> builds it. "
    "The API is at <a href=%API%>%API%</a>.</p></html>"
)


class SecurityHeadersMiddleware:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in PAGE_HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, sent)


def add_dashboard(app: FastAPI, context: WebContext, dashboard: str) -> None:
    """Serve the dashboard at the path `dashboard` (for example ``/jobs/`` or ``/``)."""
    root = "/" + dashboard.strip("/")
    prefix = "" if root == "/" else root
    context.dashboard = f"{prefix}/"
    up = "../" * prefix.count("/") or "./"
    index = STATIC / "index.html"

    async def page(request: Request) -> Response:
        path = request.path_params.get("path", "")
        file = (STATIC / path.replace("\x00", "?")).resolve()
        if path and _is_file(file) and file.is_relative_to(STATIC.resolve()) and file != index.resolve():
            # Built files have a content hash in their name, under assets/.
            keep = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
            # Not a FileResponse, which lets anyone ask for thousands of ranges of the file.
            kind = guess_type(file.name)[0] or "text/plain"
            return Response(file.read_bytes(), media_type=kind, headers={"Cache-Control": keep})
        if path:
            return response(404, "Not Found")
        text = index.read_text("utf-8") if index.is_file() else _NOT_BUILT_PAGE
        # Relative, because a proxy may strip a prefix of the path.
        return HTMLResponse(text.replace(API_PLACEHOLDER, up + "api"), headers={"Cache-Control": "no-store"})

    async def with_slash(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{root.rsplit('/', 1)[-1]}/{query}", 307)

    if prefix:
        app.router.routes.append(PlainRoute(prefix, with_slash, include_in_schema=False))
    pages = PlainRoute(
        f"{prefix}/{{path:path}}",
        Compressed(SecurityHeadersMiddleware(_as_asgi(page))),
        methods=["GET"],
        include_in_schema=False,
    )
    app.router.routes.append(pages)


def add_root_redirect(app: FastAPI, dashboard: str) -> None:
    """Redirect ``/``, the address that a server prints, to the dashboard."""

    async def home(_: Request) -> Response:
        return RedirectResponse(f"{dashboard.strip('/')}/", 307)

    if dashboard.strip("/"):
        app.router.routes.append(PlainRoute("/", home, include_in_schema=False))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _as_asgi(endpoint: object) -> ASGIApp:
    """Return a request handler as an ASGI application."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        answer = await endpoint(Request(scope, receive, send))  # type: ignore[operator]
        await answer(scope, receive, send)

    return application
