"""Run the web interface with uvicorn, and decide which authentication it needs."""

from __future__ import annotations

import copy
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from milepost import plugins
from milepost.core.addresses import is_loopback
from milepost.core.errors import InvalidInputError, MissingExtraError
from milepost.settings import Settings, settings
from milepost.stores.factory import open_store
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync
from milepost.web import auth as auths
from milepost.web.app import create_app
from milepost.web.context import WebContext
from milepost.web.http.middleware import HeaderTimeoutMiddleware, header_timeout_protocol
from milepost.web.security.api_keys import ApiKeyStore
from milepost.web.security.local_access import LocalAccess

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000
OPEN_ACCESS_WARNING = (
    "Warning: no authentication. Every caller that reaches this server may do everything. "
    "To require API keys, run: milepost keys create"
)


def serve(
    jobs: Any,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    auth: Any = None,
    dashboard: str = "/jobs",
    workers: int = 0,
    log_level: str = "info",
    grace: float | None = None,
    **options: Any,
) -> None:
    """Serve until a signal arrives, as `milepost serve` does.

    `jobs` is a store URL, a manager, a `Jobs`, or an ASGI application. `auth` is `"keys"`, `"none"` or an argument of
    `create_app`. Without it the settings of `jobs` decide (MILEPOST_AUTH), then the store: if it has keys they are
    required. Without keys only loopback addresses are served, unless `auth` or MILEPOST_AUTH is `none`. An application
    already has its `auth`: `"none"` confirms that it has no authentication, and any other value raises InvalidInputError.
    `workers` is the number of workers of a `Jobs` to run in this process.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingExtraError("web", "milepost serve") from error
    if _is_application(jobs):
        application = jobs
        check_application(application, host, auth)
    else:
        application = make_application(jobs, host, auth, dashboard)
        if workers:
            application.state.milepost.background.append(lambda context: context.workers(workers))
    if not options.keys() & {"uds", "fd"}:
        _check_host(host)
    context: WebContext | None = getattr(getattr(application, "state", None), "milepost", None)
    config = uvicorn.Config(
        HeaderTimeoutMiddleware(application),
        host=host,
        port=port,
        log_level=log_level,
        timeout_graceful_shutdown=None if grace is None else int(grace) + 2,
        http=options.pop("http", None) or header_timeout_protocol(settings_of(jobs).request_timeout),
        **{"server_header": False, "access_log": False, "lifespan": "on", "log_config": _log_config(), **options},
    )

    class Server(uvicorn.Server):
        """Prints the address of the dashboard when the port is known, and removes the token file at the end."""

        async def startup(self, sockets: Any = None) -> None:
            """See uvicorn.Server."""
            await super().startup(sockets)
            if self.started and context is not None:
                bound = [one.getsockname() for server in self.servers for one in server.sockets]
                if all(isinstance(name, tuple) for name in bound):  # a unix socket has no URL
                    announce(context, "https" if config.is_ssl else "http", host, [name[:2] for name in bound])

        async def shutdown(self, sockets: Any = None) -> None:
            """See uvicorn.Server, which afterwards ends the process with its signal."""
            if context is not None and context.authenticator.local is not None:
                context.authenticator.local.close()
            await super().shutdown(sockets)

    Server(config).run()


def check_application(application: Any, host: str, auth: Any) -> None:
    """Check `auth` for an application, and refuse to serve it publicly without authentication. Raises InvalidInputError."""
    unauthenticated = any(not context.authenticator.auth.keyed for context in contexts_of(application))
    if auth is None:
        if unauthenticated:
            _refuse_public_without_auth(host)
    elif auth != "none" or not unauthenticated:
        raise InvalidInputError("auth", "not supported for an application; pass auth to attach or create_app instead")


def contexts_of(application: Any) -> list[WebContext]:
    """Return the contexts of an application and of the applications mounted in it."""
    context = getattr(getattr(application, "state", None), "milepost", None)
    found = [context] if isinstance(context, WebContext) else []
    for route in getattr(application, "routes", None) or ():
        found += contexts_of(getattr(route, "app", None))
    return found


def make_application(jobs: Any, host: str, auth: Any, dashboard: str) -> Any:
    """Return the application for jobs. Raises InvalidInputError if it would be public without authentication.

    With MILEPOST_STRICT it raises StoreError if the store fails its health check.
    """
    if settings_of(jobs).strict:
        with _blocking_store(jobs) as store:
            run_sync(store.check_health()).require_no_warnings()
    application = create_app(jobs, auth=choose_auth(jobs, host, auth), dashboard=dashboard)
    add_plugin_routes(application)
    return application


def announce(context: WebContext, scheme: str, host: str, bound: list[tuple[str, int]]) -> None:
    """Print the address of the dashboard, and how to sign in.

    On a loopback address also let in the user who started the server. A proxy before the server has an address of its own.
    """
    shown = "127.0.0.1" if host in ("", "0.0.0.0") else "::1" if host.strip("[]") == "::" else host.strip("[]")
    page = f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{bound[0][1]}{context.dashboard}"
    lines = [f"Dashboard: {page}"]
    if isinstance(context.authenticator.auth, auths.NoAuth) and not is_loopback(host):
        lines.append(OPEN_ACCESS_WARNING)
    if isinstance(context.authenticator.auth, auths.ApiKeys) and is_loopback(host):
        local = context.authenticator.local = LocalAccess()
        lines.append(f"API keys are required. Sign in once within 10 minutes: {page}#signin={local.new_link()}")
        if scheme == "http":
            for address, port in bound:  # localhost may have two
                local.write_token(address, port)
    sys.stderr.write("\n".join(lines) + "\n")


def choose_auth(jobs: Any, host: str, auth: Any = None) -> auths.Auth:
    """Return the authentication for jobs. Raises InvalidInputError if they would be public without it."""
    named = settings_of(jobs).auth if auth is None else auth
    if named is None:
        if has_keys(jobs):
            return auths.api_keys()
        _refuse_public_without_auth(host)
        return auths.none()
    return auths.auth_from_name(named) if isinstance(named, str) else auths.as_auth(named)


def _check_host(host: str) -> None:
    """Raise InvalidInputError for what is neither an address nor a name of a machine."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        raise InvalidInputError(
            "host", f"{host!r:.100} is not an address or a host name; use 127.0.0.1, or 0.0.0.0 for all addresses"
        ) from None


def _refuse_public_without_auth(host: str) -> None:
    if not is_loopback(host):
        raise InvalidInputError(
            "host",
            f"refusing to listen on {host} without authentication; "
            "create an API key (milepost keys create; in an application auth.api_keys()) "
            "or pass --auth none (in Python auth='none')",
        )


def add_plugin_routes(application: Any) -> None:
    """Add the routes of all plugins, as `milepost serve` does. A broken plugin is logged and left out."""
    plugins.use_all("milepost.routes", lambda _, attach: attach(application))


def settings_of(jobs: Any) -> Settings:
    """Return the settings of a manager or a `Jobs`; for a URL or an application, those of the environment."""
    given = getattr(jobs, "settings", None)
    return given if isinstance(given, Settings) else settings.current()


def has_keys(jobs: Any) -> bool:
    """Return whether the store has any key. Revoked and expired keys count, so that the last one to end opens nothing."""
    with _blocking_store(jobs) as store:
        return bool(run_sync(ApiKeyStore(store).all()))


@contextmanager
def _blocking_store(jobs: Any) -> Iterator[Store]:
    store = open_store(jobs, namespace=settings_of(jobs).namespace) if isinstance(jobs, str) else jobs.store
    blocking = store.with_blocking(blocking=True)
    try:
        yield blocking
    finally:
        if blocking is not store or isinstance(jobs, str):
            run_sync(blocking.close())


def _log_config() -> dict[str, Any]:
    """Return uvicorn's logging configuration, with milepost's warnings if the application configures no logging."""
    config: dict[str, Any] = copy.deepcopy(import_module("uvicorn.config").LOGGING_CONFIG)
    if not logging.getLogger().handlers:
        config["loggers"]["milepost"] = {"handlers": ["default"], "level": "WARNING"}
    return config


def _is_application(value: Any) -> bool:
    """Return whether a value is an ASGI application rather than jobs."""
    return not isinstance(value, str) and callable(value) and not hasattr(value, "store")
