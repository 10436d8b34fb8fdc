"""Real servers for tests: which are installed, and how to find them. Fixtures are in `conftest.py`."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

START_SECONDS = 30.0  # hang guards, not aims
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Service:
    """A program that tests start: the Debian packages that bring it, where it is found, and what it must be to serve.

    Without Debian packages it is one of the npm packages in `POSTGRES_VERSIONS`.

    `lacks` returns what a program of that path lacks ("is 6.2, older than 7.0"), or None when tests can use it.
    """

    packages: tuple[str, ...]
    commands: tuple[str, ...]
    slow: bool = False  # only `make test-slow` installs it
    lacks: Callable[[str], str | None] = lambda path: None


@functools.cache
def version(path: str) -> tuple[int, ...]:
    """Return the version that a program prints, as numbers; empty when it prints none."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=START_SECONDS)
    found = re.search(r"\d+(?:\.\d+)+", done.stdout)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def at_least(*lowest: int) -> Callable[[str], str | None]:
    """Make the check that a program is of this version or later."""

    def lacks(path: str) -> str | None:
        found = version(path)
        return (
            None if found >= lowest else f"is {_dotted(found) or 'of an unknown version'}, older than {_dotted(lowest)}"
        )

    return lacks


def postgresql_lacks(path: str) -> str | None:
    """Return what a PostgreSQL server lacks: version 15, or the extension pgvector in its share directory."""
    if older := at_least(15)(path):
        return older
    prefix, major = Path(path).resolve().parent.parent, version(path)[0]
    shares = (prefix / "share", prefix / "share" / "postgresql", Path(f"/usr/share/postgresql/{major}"))
    if any((share / "extension" / "vector.control").is_file() for share in shares):
        return None
    return f"is {_dotted(version(path))} without the extension pgvector"


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


POSTGRES_VERSIONS = Path(__file__).parent / "postgres_versions"


def postgres_versions_folder() -> Path:
    """Return where the packages of `POSTGRES_VERSIONS` are installed, a folder that the account of the server can read."""
    cache = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    lock = hashlib.sha256((POSTGRES_VERSIONS / "package-lock.json").read_bytes()).hexdigest()
    return cache / "milepost-tests" / f"postgres-{lock[:12]}"


def _other_postgresql(major: int) -> Service:
    program = postgres_versions_folder() / "node_modules" / f"postgres-{major}" / "native" / "bin" / "postgres"
    return Service((), (str(program),), slow=True, lacks=at_least(major))


# Test files name these as service("..."), service="..." or need("..."); scripts/install_services.py reads that.
SERVICES: Mapping[str, Service] = {
    "redis-server": Service(("redis-server",), ("redis-server",), lacks=at_least(7, 0)),
    "chromium": Service(("chromium",), ("chromium", "chromium-browser", "google-chrome")),
    "pandoc": Service(("pandoc",), ("pandoc",), slow=True),
    "pdftotext": Service(("poppler-utils",), ("pdftotext",), slow=True),
    "faketime": Service(("faketime",), ("faketime",)),
    "kustomize": Service(("kustomize",), ("kustomize",), slow=True),
    "mmdebstrap": Service(("mmdebstrap", "debian-archive-keyring"), ("mmdebstrap",), slow=True),
    "valgrind": Service(("valgrind",), ("valgrind",), slow=True),
    "valkey-server": Service(("valkey-server",), ("valkey-server",), slow=True, lacks=at_least(7, 2)),
    "rabbitmq-server": Service(
        ("rabbitmq-server",),
        ("/usr/lib/rabbitmq/bin/rabbitmq-server",),
        slow=True,  # the one on the PATH changes its user
    ),
    "python3.13": Service(("python3.13-venv",), ("python3.13",), slow=True),
    "postgresql": Service(
        ("postgresql-17", "postgresql-17-pgvector"),
        (*(f"/usr/lib/postgresql/{major}/bin/postgres" for major in (18, 17, 16, 15)), "postgres"),
        lacks=postgresql_lacks,
    ),
    "pgbouncer": Service(("pgbouncer",), ("/usr/sbin/pgbouncer", "pgbouncer"), slow=True, lacks=at_least(1, 21)),
    "postgresql-15": _other_postgresql(15),
    "postgresql-18": _other_postgresql(18),
}


def _candidates(name: str) -> Iterator[tuple[str, str | None]]:
    """Yield the programs of a service that are installed, each with what it lacks."""
    service = SERVICES[name]
    for command in service.commands:
        if path := shutil.which(command):
            yield path, service.lacks(path)


def find(name: str) -> str | None:
    """Return the path of a service's program that tests can use, or None when none is installed."""
    return next((path for path, lack in _candidates(name) if lack is None), None)


def need(name: str) -> str:
    """Return the path of a service's program; without it skip the test here, fail it in CI."""
    path = find(name)
    if path is not None:
        return path
    unfit = dict.fromkeys(f"{Path(path).resolve()} {lack}" for path, lack in _candidates(name))
    why = "; ".join(unfit) or f"{name} is not installed"
    packages = " ".join(SERVICES[name].packages)
    return absent(
        f"{why}: {f'apt-get install {packages}' if packages else 'python scripts/install_services.py --slow'}"
    )


def in_ci() -> bool:
    """Tell whether this is a CI run, in which an absent service is a failure."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


_LANES = 64
_PORTS = range(20_000, 32_000, _LANES)  # below those that systems give to connections
_turns = itertools.count(os.getpid())


@functools.cache
def _lane() -> int:
    """Return a number that no other running test process of this machine has, of any user.

    The lock on its file belongs to the process until it ends.
    """
    for lane in range(_LANES):
        held = os.open(Path(tempfile.gettempdir(), f"milepost-tests-{lane}.lock"), os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
        else:
            return lane
    raise AssertionError(f"{_LANES} test processes run already")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free, for a server that starts later, or again on the same port.

    No connection gets such a port from the system. Test processes have different ones, and use each in turn.
    """
    for turn in itertools.islice(_turns, len(_PORTS)):
        port = _PORTS[turn % len(_PORTS)] + _lane()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def absent(reason: str) -> NoReturn:
    """Skip the test; in CI, fail."""
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class FakeClock:
    """A wall clock of processes that are started with its `environment`; `jump` moves it while they run. Needs faketime.

    Their monotonic clock is unchanged, as on a machine whose time is set. Redis cannot start with it.
    """

    def __init__(self, file: Path) -> None:
        need("faketime")
        self._file = file
        self.jump("+0")
        library = next(Path("/usr/lib").rglob("libfaketimeMT.so.1"))
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset: str) -> None:
        """Set its offset from the true time: "+1h", "-3600", "+0"."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset}\n", encoding="utf-8")
        fresh.replace(self._file)
