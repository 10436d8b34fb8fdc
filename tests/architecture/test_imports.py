"""Check which packages each entry point imports.

Its own packages must match exactly. Third-party packages may only be those listed, including those that they import in
turn if installed.
"""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

import pytest

TRACKING = {"core", "forks", "manager", "plugins", "settings", "stores", "run"}
WORKING = TRACKING | {"worker"}
HTTPX = {
    "anyio",
    "certifi",
    "click",
    "h11",
    "httpcore",
    "httpx",
    "idna",
    "pygments",
    "rich",
    "sniffio",
}  # its own program's too
REDIS = {
    "cffi",
    "_cffi_backend",
    "cryptography",
    "hiredis",
    "jwt",
    "opentelemetry",
    "psutil",  # of OpenTelemetry's SDK
    "redis",
    "typing_extensions",
}  # where installed
FASTAPI = {"annotated_doc", "annotated_types", "anyio", "fastapi", "idna", "pydantic", "pydantic_core", "sniffio", "starlette",
           "typing_extensions", "typing_inspection"}  # fmt: skip
WEB_EXTRAS = {"dotenv", "email_validator", "multipart", "python_multipart", "jinja2", "markupsafe", "orjson", "ujson", "itsdangerous",
              "yaml", "rich", "pygments", "dns", "opentelemetry", "exceptiongroup"}  # fmt: skip  # what FastAPI takes where installed
NEVER_AT_FIRST = {"asyncio", "sqlite3", "ssl", "subprocess", "multiprocessing", "email", "http.client"}


class EntryPoint(NamedTuple):
    """The packages of milepost that an entry point imports, those of others that it may import, and stdlib modules that it must not."""

    own_packages: set[str]
    packages: frozenset[str] | set[str] = frozenset()
    without: frozenset[str] | set[str] = frozenset({"sqlite3", "multiprocessing"})


ENTRY_POINTS = {
    "import milepost": EntryPoint(set(), without=NEVER_AT_FIRST | {"dataclasses", "inspect", "json", "logging"}),
    "from milepost import JobStatus": EntryPoint({"core"}, without=NEVER_AT_FIRST),
    "from milepost import InMemoryJobManager; InMemoryJobManager().create_job()": EntryPoint(TRACKING),
    "from milepost import Jobs; Jobs('memory://')": EntryPoint(WORKING | {"app", "signals"}),
    "import milepost.worker.worker": EntryPoint(WORKING - {"plugins"} | {"signals"}),
    "from milepost import RedisJobManager; RedisJobManager('redis://127.0.0.1:1')": EntryPoint(TRACKING, REDIS),
    "from milepost import SQLiteJobManager; SQLiteJobManager('/dev/null')": EntryPoint(TRACKING, without={"redis"}),
    "from milepost import Client": EntryPoint(WORKING | {"client", "query"}, HTTPX),
    "import milepost.web": EntryPoint({"core", "web"}, without=NEVER_AT_FIRST),
    "from milepost.web import attach": EntryPoint(
        WORKING | {"app", "query", "signals", "web"}, FASTAPI | WEB_EXTRAS | HTTPX, without={"sqlite3"}
    ),
    "import milepost.documents": EntryPoint({"core", "documents", "forks", "plugins"}, without={"asyncio", "sqlite3"}),
    "from milepost.cli import main; main(['--help'])": EntryPoint(
        {"cli", "plugins"}, {"click"}, without=NEVER_AT_FIRST
    ),
    "from milepost.cli import main; main(['worker', '--help'])": EntryPoint(
        {"cli", "core", "plugins", "stores", "run", "logging"}, {"click"}, without=NEVER_AT_FIRST
    ),
}


@pytest.mark.parametrize("statement", ENTRY_POINTS)
def test_entry_point_imports_only_what_it_needs(statement: str) -> None:
    way = ENTRY_POINTS[statement]
    loaded = loaded_by(statement)
    assert {name.split(".")[1] for name in loaded if name.startswith("milepost.")} == way.own_packages
    packages = {name.partition(".")[0] for name in loaded if not name.startswith("_sysconfigdata")}
    assert packages - sys.stdlib_module_names - {"milepost"} - way.packages == set()
    assert loaded & way.without == set()


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a new interpreter, however it ends."""
    program = f"import sys; before = set(sys.modules)\ntry:\n    {statement}\nfinally:\n    print('@', *(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.rpartition("@")[2].split())


def test_all_names_are_imported_without_extras() -> None:
    program = (
        "import sys; sys.modules['httpx'] = None; from milepost import *; print(Jobs.__name__, 'Client' in globals())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "Jobs False\n"
