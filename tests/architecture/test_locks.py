"""The lock files answer to pyproject.toml: nothing that it asks for is missing, too old, or without a hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"dev": ["dev"], "demo": ["all", "documents"], "bench": ["all", "rq"]}


def wanted(project: dict[str, Any], extras: list[str]) -> list[Requirement]:
    """Return the requirements of extras, those of the extras that they name included."""
    found = []
    for line in (line for extra in extras for line in project["optional-dependencies"][extra]):
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == canonicalize_name(project["name"]):
            found += wanted(project, sorted(requirement.extras))
        else:
            found.append(requirement)
    return found


def locked(text: str) -> dict[str, list[Version]]:
    """Return the versions of each package in a lock; several where they differ between Pythons."""
    versions: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE):
        versions.setdefault(canonicalize_name(name), []).append(Version(version))
    return versions


def unmet(requirements: list[Requirement], lock: str) -> list[str]:
    """Return the requirements that a lock does not meet."""
    have = locked(lock)
    return [
        str(requirement)
        for requirement in requirements
        if not (found := have.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(version, prereleases=True) for version in found)
    ]


def without_hash(lock: str) -> list[str]:
    """Return the pinned packages of a lock that no hash follows."""
    return re.findall(r"^([\w.-]+==\S+)(?![^\n]*\\\n\s+--hash=sha256:)", lock, re.MULTILINE)


def test_the_build_is_locked_too() -> None:
    build = (ROOT / "requirements" / "build.in").read_text().splitlines()
    assert set(pyproject()["build-system"]["requires"]) <= set(build)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_meets_pyproject(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    always = pyproject()["project"]["dependencies"] + pyproject()["build-system"]["requires"]
    requirements = [*map(Requirement, always), *wanted(pyproject()["project"], LOCKS[lock])]
    assert unmet(requirements, text) == [], "run `make locks`"
    assert without_hash(text) == []


def test_a_lock_that_does_not_meet_it_is_found() -> None:
    project = {"name": "me", "optional-dependencies": {"x": ["me[y]", "b"], "y": ["C_c<2", "a>=2"]}}
    lock = "a==1.0 \\\n    --hash=sha256:00\nc-c==1.5 ; python_version < '3.12' \\\n    --hash=sha256:00\nc-c==2.5\n"
    assert unmet(wanted(project, ["x"]), lock) == ["C_c<2", "a>=2", "b"]
    assert without_hash(lock) == ["c-c==2.5"]


def pyproject() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
