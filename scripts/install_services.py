"""Install the servers and browsers that tests require and this machine lacks; --slow adds those of slow tests.

A test names what it needs as service("..."), service="..." or need("..."), a key of SERVICES in tests/services.py. A machine
that has them is left alone. What cannot be installed is said in one line: its tests then skip, and fail in CI.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dashboard.build import BuildError, npm  # noqa: E402 - the path comes first
from tests.services import POSTGRES_VERSIONS, SERVICES, find, in_ci, postgres_versions_folder  # noqa: E402

ALWAYS = "redis-server"  # the fixtures of conftest.py start it


def named() -> set[str]:
    """Return the services that the test files require."""
    names = {ALWAYS}
    for path in (ROOT / "tests").rglob("*.py"):
        names |= set(re.findall(r"""\b(?:service|need)[(=]["']([\w.-]+)["']""", path.read_text(encoding="utf-8")))
    return names & set(SERVICES)


def main() -> int:
    """Install missing services. Return a failure only in CI, where missing services fail the tests."""
    slow = "--slow" in sys.argv[1:]
    missing = [SERVICES[name] for name in sorted(named()) if (slow or not SERVICES[name].slow) and find(name) is None]
    code = 0
    if packages := [package for service in missing for package in service.packages]:
        code = subprocess.run(["sh", str(ROOT / "scripts" / "apt.sh"), *packages], check=False).returncode
    if not all(service.packages for service in missing):
        code = install_postgres_versions() or code
    return code if in_ci() else 0


def install_postgres_versions() -> int:
    """Install other versions of PostgreSQL with npm into a cache. Return 1, after one line, if that failed."""
    folder = postgres_versions_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for path in POSTGRES_VERSIONS.iterdir():
        shutil.copy(path, folder)
    try:
        command, environment = npm()
        sys.stdout.write("Installing with npm: PostgreSQL 15 and 18\n")
        subprocess.run([*command, "ci", "--silent"], cwd=folder, env=environment, check=True)
    except (BuildError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"milepost: tests of PostgreSQL 15 and 18 are skipped, npm could not install them: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
