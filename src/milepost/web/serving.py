"""Running the interface with uvicorn: where it may listen, and how it ends. Owns the refusal of an open door."""

from __future__ import annotations

from typing import Any

from milepost.core.errors import InvalidInput, MissingExtra
from milepost.web import auth as auths
from milepost.web.hosts import is_loopback
from milepost.web.routing import create_app

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000


def serve(
    jobs: Any,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    auth: Any = None,
    insecure: bool = False,
    dashboard: str = "/jobs",
    workers: int = 0,
    log_level: str = "info",
    grace: float | None = None,
    **options: Any,
) -> None:
    """Serve until a signal comes: what `milepost serve` runs.

    `jobs` is a URL, a manager, a `Jobs`, or an ASGI application. `auth` None means keys on a public address and nobody
    asked on this machine's own. `workers` runs that many workers of a `Jobs` inside. Raises InvalidInput for a public
    address without keys, unless `insecure`.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingExtra("web", "milepost serve") from error
    application = jobs if _is_application(jobs) else None
    if application is None:
        chosen = auths.as_auth(auth) if auth is not None else auths.none()
        if not chosen.keyed and not is_loopback(host) and not insecure:
            raise InvalidInput(
                "host",
                f"{host} can be reached from other machines and nobody would be asked for a key; "
                "use --auth keys (milepost keys create), or --insecure if that is what you want",
            )
        application = create_app(
            jobs, auth=chosen, dashboard=dashboard, local_only=is_loopback(host) and not chosen.keyed
        )
        if workers:
            application.state.milepost.background.append(lambda site: site.app.running(workers=workers))
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_level=log_level,
        timeout_graceful_shutdown=None if grace is None else int(grace) + 2,
        **{"server_header": False, "access_log": False, "lifespan": "on", **options},
    )
    uvicorn.Server(config).run()


def _is_application(value: Any) -> bool:
    """Whether something is an ASGI application rather than jobs."""
    return (
        not isinstance(value, str) and callable(value) and not hasattr(value, "store") and not hasattr(value, "manager")
    )
