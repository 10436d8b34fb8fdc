"""Install the servers and browsers that tests require and this machine lacks; --slow adds those of slow tests.

A test names what it needs as service("..."), service="..." or need("..."), a key of SERVICES in tests/services.py. A machine
that has them is left alone. What cannot be installed is said in one line: its tests then skip, and fail in CI.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.services import SERVICES, find, in_ci  # noqa: E402 - the path comes first

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
    packages = [
        package
        for name in sorted(named())
        if (slow or not SERVICES[name].slow) and find(name) is None
        for package in SERVICES[name].packages
    ]
    if not packages:
        return 0
    done = subprocess.run(["sh", str(ROOT / "scripts" / "apt.sh"), *packages], check=False)
    return done.returncode if in_ci() else 0


if __name__ == "__main__":
    sys.exit(main())
