"""Builds the page and serves the application: `make fullstack`.

The database is that of MILEPOST_URL, else of the standard variables of PostgreSQL, as `pg_virtualenv` sets them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from dashboard.build import npm  # noqa: E402 - the path comes first


def build() -> None:
    """Pack the npm package of this clone, install it for the page, and build the page."""
    package, page = ROOT / "clients/npm", HERE / "page"
    call("ci", folder=package)
    packed = call("pack", "--silent", folder=package).split()[-1]
    call("install", "--no-save", "--no-package-lock", str(package / packed), folder=page)
    call("run", "build", folder=page)


def call(*arguments: str, folder: Path) -> str:
    """Run npm in a folder, and return what it printed."""
    command, environment = npm()
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def database_url() -> str:
    """Return the URL of the database."""
    if url := os.environ.get("MILEPOST_URL"):
        return url
    user, password, host, port, name = (
        quote(os.environ[f"PG{part}"], safe="") for part in ("USER", "PASSWORD", "HOST", "PORT", "DATABASE")
    )
    return f"postgresql://{user}:{password}@{host}:{port}/{name}"


if __name__ == "__main__":
    build()
    os.environ["MILEPOST_URL"] = database_url()
    command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(HERE), *sys.argv[1:]]
    os.execv(sys.executable, command)
