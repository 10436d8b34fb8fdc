"""Running the interface with uvicorn: where it may listen, and how it ends. Owns the refusal of an open door."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from milepost.core.errors import InvalidInput, MissingExtra
from milepost.settings import settings
from milepost.stores.driving import drive
from milepost.stores.opening import open_store
from milepost.web import auth as auths
from milepost.web.hosts import is_loopback
from milepost.web.keys import Keys
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

    `jobs` is a URL, a manager, a `Jobs`, or an ASGI application. With `auth` None nobody is asked on this machine's own
    addresses; on others the keys of the store are, and where there are none the answer is InvalidInput, unless
    `insecure`. `workers` runs that many workers of a `Jobs` inside.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingExtra("web", "milepost serve") from error
    application = jobs if _is_application(jobs) else None
    if application is None:
        if auth is None:
            asks = not is_loopback(host) and not insecure and has_keys(jobs)
            auth = auths.api_keys() if asks else auths.none()
        chosen = auths.as_auth(auth)
        if not chosen.keyed and not is_loopback(host) and not insecure:
            raise InvalidInput(
                "host",
                f"{host} can be reached from other machines and nobody would be asked for a key; "
                "make a key first (milepost keys create), or say --insecure if that is what you want",
            )
        application = create_app(
            jobs, auth=chosen, dashboard=dashboard, local_only=is_loopback(host) and not chosen.keyed
        )
        bring_documents(application)
        if workers:
            application.state.milepost.background.append(lambda site: site.workers(workers))
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_level=log_level,
        timeout_graceful_shutdown=None if grace is None else int(grace) + 2,
        **{"server_header": False, "access_log": False, "lifespan": "on", **options},
    )
    uvicorn.Server(config).run()


def bring_documents(application: Any) -> None:
    """Add the calls about documents. They are a ring further out, so they are asked for by name, here where it is run."""
    import_module("milepost.documents.routes").attach_documents(application)


def has_keys(jobs: Any) -> bool:
    """Whether the store of some jobs holds a key that can be used."""
    store = open_store(jobs, namespace=settings.current().namespace) if isinstance(jobs, str) else jobs.store
    blocking = store.twin(blocking=True)
    try:
        now = drive(blocking.now())
        return any(key.usable(now) for key in drive(Keys(blocking).all()))
    finally:
        if blocking is not store or isinstance(jobs, str):
            drive(blocking.close())


def _is_application(value: Any) -> bool:
    """Whether something is an ASGI application rather than jobs."""
    return not isinstance(value, str) and callable(value) and not hasattr(value, "store")
