"""The lock files satisfy pyproject.toml: nothing is missing, too old, or without a hash."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"dev": ["dev"], "demo": ["all", "documents"], "bench": ["all", "rq"]}


def wanted(project: dict[str, Any], extras: list[str]) -> list[Requirement]:
    """Return the requirements of extras, including those of the extras that they name."""
    found = []
    for line in (line for extra in extras for line in project["optional-dependencies"][extra]):
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == canonicalize_name(project["name"]):
            found += wanted(project, sorted(requirement.extras))
        else:
            found.append(requirement)
    return found


class Locked(NamedTuple):
    """What a lock has of a package: several versions if they differ between Python versions."""

    versions: list[Version]
    extras: set[str]


def locked(text: str) -> dict[str, Locked]:
    """Return what a lock has of each package."""
    found: dict[str, Locked] = {}
    for name, extras, version in re.findall(r"^([\w.-]+)(?:\[([\w.,-]+)\])?==(\S+)", text, re.MULTILINE):
        one = found.setdefault(canonicalize_name(name), Locked([], set()))
        one.versions.append(Version(version))
        one.extras.update(filter(None, extras.split(",")))
    return found


def unmet(requirements: list[Requirement], lock: str) -> list[str]:
    """Return the requirements that a lock does not satisfy.

    Their extras count: older versions of pip overlook the pin of a package where another asks for it with extras.
    """
    have = locked(lock)
    return [
        str(requirement)
        for requirement in requirements
        if not (found := have.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(version, prereleases=True) for version in found.versions)
        or not requirement.extras <= found.extras
    ]


def without_hash(lock: str) -> list[str]:
    """Return the pinned packages of a lock without a hash."""
    return re.findall(r"^([\w.-]+(?:\[\S+\])?==\S+)(?![^\n]*\\\n\s+--hash=sha256:)", lock, re.MULTILINE)


def test_build_requirements_are_locked() -> None:
    build = (ROOT / "requirements" / "build.in").read_text().splitlines()
    assert set(pyproject()["build-system"]["requires"]) <= set(build)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_satisfies_pyproject(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    always = pyproject()["project"]["dependencies"] + pyproject()["build-system"]["requires"]
    requirements = [*map(Requirement, always), *wanted(pyproject()["project"], LOCKS[lock])]
    assert unmet(requirements, text) == [], "run `make locks`"
    assert without_hash(text) == []


def test_unsatisfied_lock_file_is_detected() -> None:
    project = {"name": "me", "optional-dependencies": {"x": ["me[y]", "b"], "y": ["C_c<2", "a>=2", "d[e]", "d[f]"]}}
    lock = "a==1.0 \\\n    --hash=sha256:00\nc-c==1.5 ; python_version < '3.12' \\\n    --hash=sha256:00\nc-c==2.5\nd[f,g]==1\n"
    assert unmet(wanted(project, ["x"]), lock) == ["C_c<2", "a>=2", "d[e]", "b"]
    assert without_hash(lock) == ["c-c==2.5", "d[f,g]==1"]


def pyproject() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_celery_extra_has_what_the_redis_transport_imports() -> None:
    """Celery applications with a Redis broker failed at their first message, because kombu imports packaging without
    requiring it.
    """
    pytest.importorskip("celery")
    spec = find_spec("kombu.transport.redis")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    imported = {
        name.partition(".")[0]
        for node in tree.body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    required = {
        Requirement(line).name
        for name in ("celery", "kombu")
        for line in requires(name) or ()
        if "extra ==" not in line
    }
    extra = {requirement.name for requirement in wanted(pyproject()["project"], ["celery"])}
    assert imported - set(sys.stdlib_module_names) <= {"kombu"} | required | extra
