"""Apply every architecture rule to the source tree, with its exceptions and their reasons."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture import rules

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "milepost"

MAX_LINES = 400
LONGER_FILES: dict[str, str] = {}  # "path/in/src/milepost.py": "reason"

# Third-party packages that a layer may import at module level; all others are imported where they are used.
IMPORTED_AT_START: dict[str, set[str]] = {
    "cli/": {"click"},
    "cli/tui": {"rich", "textual"},
    "client/": {"httpx"},
    "django/": {"asgiref", "django", "django_tasks"},
    "documents/commands": {"click"},
    "documents/document_commands": {"click"},
    "documents/routes": {"fastapi"},
    "integrations/": {
        "billiard",
        "celery",
        "click",
        "distributed",
        "dramatiq",
        "kombu",
        "ray",
        "redis",
        "rq",
        "taskiq",
    },
    "mcp/": {"anyio", "httpx", "mcp", "mcp_types", "pydantic", "starlette"},
    "stores/postgres": {"psycopg"},
    "stores/redis": {"hiredis", "redis"},
    "testing/": {"hypothesis", "pytest"},
    "tqdm": {"tqdm"},
    "web/": {"fastapi", "pydantic", "pydantic_core", "starlette"},
}

# Private names of other packages, for which there is no public one. Beside each use stands why; the transport that
# `stores/redis/async_connection.py` takes from redis-py has names that we use too.
PRIVATE_NAMES: dict[str, set[str]] = {
    "documents/loaders/office.py": {"_tbl", "_tc"},
    "run/otel.py": {"_real_meter_provider"},
    "worker/parameters.py": {"_is_protocol"},
}

# Modules that name modules of outer layers in strings.
NAMES_OUTER_MODULES = {"plugins.py"}  # the table of built-in plugins, which are imported when they are used

# Packages that work with only the standard library installed.
WITHOUT_DEPENDENCIES = [
    "milepost",
    "milepost.core",
    "milepost.stores",
    "milepost.run",
    "milepost.manager",
    "milepost.documents",
]


def tracked_files() -> list[Path]:
    """Return the existing files that git tracks, except the tests of the rules, which contain bad examples."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git clone")
    names = [name for name in done.stdout.decode().split("\0") if name and not name.startswith("tests/architecture/")]
    return [path for name in names if (path := ROOT / name).is_file()]


def test_files_stay_below_max_lines() -> None:
    assert rules.too_long(SOURCE, MAX_LINES, LONGER_FILES) == []


def test_module_names_are_not_vague() -> None:
    assert rules.vague_names(SOURCE) == []


@pytest.mark.parametrize("tree", ["src", "scripts", "benchmarks", "examples", "tests"])
def test_modules_have_docstrings(tree: str) -> None:
    assert rules.without_docstring(ROOT / tree, blank=tree == "tests") == []


def test_store_statements_contain_no_status_words() -> None:
    assert rules.status_words(SOURCE / "stores") == []


def test_core_does_no_io() -> None:
    assert rules.impure_core(SOURCE / "core", "milepost.core") == []


def test_third_party_imports_are_local_to_their_layer() -> None:
    assert rules.third_party_imports(SOURCE, "milepost", IMPORTED_AT_START) == []


def test_private_names_of_other_packages_are_not_used() -> None:
    assert rules.private_names(SOURCE, "milepost", PRIVATE_NAMES) == []


def test_strings_name_modules_of_inner_layers_only() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [re.findall(r"milepost\.(\w+)", layer) for layer in contract["layers"]]
    breaches = rules.inward_strings(SOURCE, "milepost", layers)
    assert {breach.partition(":")[0] for breach in breaches} == NAMES_OUTER_MODULES, breaches


@pytest.mark.parametrize("module", WITHOUT_DEPENDENCIES)
def test_import_loads_no_third_party_package(module: str) -> None:
    assert loaded_by(f"import {module}") - {"milepost"} == set()


def test_tracked_files_contain_no_machine_addresses() -> None:
    assert rules.addresses(tracked_files(), ROOT) == []


@pytest.mark.parametrize("text", ["README.md", "CONTRIBUTING.md", ".ci/run", "scripts/demo.sh"])
def test_documented_make_targets_exist(text: str) -> None:
    assert rules.unknown_commands((ROOT / text).read_text(), (ROOT / "Makefile").read_text()) == []


@pytest.mark.parametrize("target", ["lint", "types", "test", "test-slow"])
def test_ci_and_contributing_name_the_same_targets(target: str) -> None:
    assert f"make {target}" in (ROOT / ".ci" / "run").read_text()
    assert f"`make {target}`" in (ROOT / "CONTRIBUTING.md").read_text()


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules outside the standard library that a statement loads in a new interpreter."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
