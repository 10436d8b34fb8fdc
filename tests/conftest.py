"""Fixtures for all tests: real Redis servers, addresses of stores, and an environment apart from that of the user.

`make test` runs several processes of pytest, each a session with a home and servers of its own.
`redis_url` is one server for the whole session; a test that uses `redis_namespace` finds it empty. A test that
kills, freezes or configures a server starts its own with `start_redis`. Without the program a test is skipped,
and with CI=true it fails.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG

from milepost import Jobs
from milepost.settings import settings
from milepost.stores.factory import open_store
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.services import absent, need
from tests.waiting import PATIENCE

_namespaces = itertools.count(1)
_homes: list[str] = []
STATIC = Path(__file__).parents[1] / "src" / "milepost" / "web" / "static"
_MEMORY = Path("/dev/shm")
_SPACE = 4 << 30  # bytes; a run uses about one fourth
_ON_POSTGRES = (pytest.mark.slow, pytest.mark.service("postgresql"))


def pytest_configure(config: pytest.Config) -> None:
    """Keep every test, and every process that it starts, away from the user's own stores and settings."""
    for name in list(os.environ):
        if name.startswith("MILEPOST_") or name in {"REDIS_URL", "JOB_TTL"}:
            del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs like this
        signal.signal(signal.SIGINT, signal.default_int_handler)  # programs under test must receive Ctrl-C
    hypothesis.settings.load_profile(
        "ci"
    )  # the same examples in each run, without time limits, also where CI is not set
    DEFAULT_TIMEOUT_CONFIG.read = PATIENCE  # five seconds otherwise, which a busy machine may take for one answer
    os.environ["PGCONNECT_TIMEOUT"] = "30"  # seconds; milepost allows 5, which a busy machine may take
    if "TMPDIR" not in os.environ and _has_space_in_memory():
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)
    _homes.append(tempfile.mkdtemp(prefix="milepost-tests-"))
    for name in ("STATE", "DATA", "CONFIG", "CACHE"):
        os.environ[f"XDG_{name}_HOME"] = os.path.join(_homes[-1], name.lower())


def _has_space_in_memory() -> bool:
    """Return whether files of tests can lie in memory, and programs run from there.

    On a disk that others keep busy, one commit can take longer than the leases of the tests.
    """
    if not os.access(_MEMORY, os.W_OK):
        return False
    volume = os.statvfs(_MEMORY)
    free = min(volume.f_bavail * volume.f_frsize, psutil.virtual_memory().available)
    return free >= _SPACE and not volume.f_flag & os.ST_NOEXEC


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folders of this run."""
    while _homes:
        shutil.rmtree(_homes.pop(), ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Read the settings again for each test, so that none has the environment of another.

    Obey `@pytest.mark.service("...")`: skip, or in CI fail, without the program.
    """
    settings.reload()
    for mark in item.iter_markers("service"):
        for name in mark.args:
            need(name)


@pytest.fixture(scope="session")
def dashboard() -> Path:
    """Return the folder of the built dashboard. It is read from disk by the servers under test."""
    if not (STATIC / "index.html").is_file():
        absent("the dashboard is not built: make static")
    return STATIC


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Yield the session's Redis, kept in memory only. Do not kill it: use `start_redis` for that."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """Return the URL of the session's Redis over TCP."""
    return redis_server.url


@pytest.fixture(scope="session")
def redis_unix_url(redis_server: RedisServer) -> str:
    """Return the URL of the session's Redis over its unix socket."""
    return redis_server.unix_url


@pytest.fixture
def redis_namespace(redis_server: RedisServer) -> str:
    """Return a namespace that no other test has used, on the session's Redis emptied of data and scripts."""
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
    return f"t{next(_namespaces)}"


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start servers of the test's own: `start_redis(appendonly="always")`; they end with the test."""
    with ExitStack() as servers:

        def start(**options: Any) -> RedisServer:
            return servers.enter_context(RedisServer(**options))

        yield start


@pytest.fixture(scope="session")
def postgres_service(request: pytest.FixtureRequest) -> str:
    """Return which PostgreSQL a test runs on, see `on_each_postgres`."""
    name: str = getattr(request, "param", "postgresql")
    return name


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Callable[[str], PostgresServer]]:
    """Yield what returns the session's server of a service."""
    with ExitStack() as ends:
        yield cache(lambda service: ends.enter_context(PostgresServer(service=service)))


@pytest.fixture(scope="session")
def postgres_server(postgres_servers: Callable[[str], PostgresServer], postgres_service: str) -> PostgresServer:
    """Return the session's PostgreSQL, without fsync. Do not kill it."""
    return postgres_servers(postgres_service)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """Return the URL of the session's PostgreSQL; a test takes a schema of its own, see `namespace`."""
    return postgres_server.url()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of a SQLite store that does not exist yet."""
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture(params=["memory", "sqlite", "redis", pytest.param("postgres", marks=_ON_POSTGRES)])
def url(request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty store of each kind."""
    kind: str = request.param
    if kind == "memory":
        return "memory://"
    address: str = request.getfixturevalue(f"{kind}_url")
    if kind == "postgres":
        request.getfixturevalue("postgres_server").emptied("milepost")
    return address


@pytest.fixture
def namespace() -> str:
    """Return a unique namespace."""
    return f"tests{os.getpid()}-{next(_namespaces)}"


@pytest.fixture
def idle_jobs(url: str, namespace: str) -> Iterator[Jobs]:
    """Yield an application on each kind of store. No worker starts by itself, in memory neither."""
    jobs = Jobs(open_store(url, namespace=namespace if "redis" in url else "milepost"))
    jobs.worker()
    yield jobs
    jobs.close()
