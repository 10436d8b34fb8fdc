"""What each way into milepost imports: the rooms of the house, exactly, and the packages of others, at most.

A package that is not in a line is not paid for on that way. What a package of others imports in its turn, where it finds it
installed, is named as such.
"""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

import pytest

TRACKING = {"core", "manager", "settings", "stores", "tracking"}
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


class Way(NamedTuple):
    """A way in: the rooms that it enters, the packages that it may bring, and what of the standard library it leaves alone."""

    rooms: set[str]
    packages: frozenset[str] | set[str] = frozenset()
    without: frozenset[str] | set[str] = frozenset({"sqlite3", "multiprocessing"})


WAYS = {
    "import milepost": Way(set(), without=NEVER_AT_FIRST | {"dataclasses", "inspect", "json", "logging"}),
    "from milepost import JobStatus": Way({"core"}, without=NEVER_AT_FIRST),
    "from milepost import InMemoryJobManager; InMemoryJobManager().create_job()": Way(TRACKING),
    "from milepost import Jobs; Jobs('memory://')": Way(WORKING | {"app"}),
    "import milepost.worker.loop": Way(WORKING),
    "from milepost import RedisJobManager; RedisJobManager('redis://127.0.0.1:1')": Way(TRACKING, REDIS),
    "from milepost import SQLiteJobManager; SQLiteJobManager('/dev/null')": Way(TRACKING, without={"redis"}),
    "from milepost import Client": Way(WORKING | {"client"}, HTTPX),
    "import milepost.web": Way({"core", "web"}, without=NEVER_AT_FIRST),
    "from milepost.web import attach": Way(WORKING | {"app", "web"}, FASTAPI | WEB_EXTRAS | HTTPX, without={"sqlite3"}),
    "import milepost.documents": Way({"documents"}, without={"asyncio", "sqlite3"}),
    "from milepost.cli import main; main(['--help'])": Way({"cli"}, {"click"}, without=NEVER_AT_FIRST),
    "from milepost.cli import main; main(['worker', '--help'])": Way(
        {"cli", "core", "stores", "tracking"}, {"click"}, without=NEVER_AT_FIRST
    ),
}


@pytest.mark.parametrize("statement", WAYS)
def test_a_way_in_imports_what_it_needs(statement: str) -> None:
    way = WAYS[statement]
    loaded = loaded_by(statement)
    assert {name.split(".")[1] for name in loaded if name.startswith("milepost.")} == way.rooms
    packages = {name.partition(".")[0] for name in loaded if not name.startswith("_sysconfigdata")}
    assert packages - sys.stdlib_module_names - {"milepost"} - way.packages == set()
    assert loaded & way.without == set()


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads in a new interpreter, however it ends."""
    program = f"import sys; before = set(sys.modules)\ntry:\n    {statement}\nfinally:\n    print('@', *(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.rpartition("@")[2].split())
