"""The house as it stands: every rule on the real tree, with its exceptions and the reason for each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import rules

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "milepost"

LONGEST = 400
LONGER: dict[str, str] = {}  # "path/in/src/milepost.py": "why it is one thing"

# The packages that a ring is made of and may import at once; everything else is imported where it is used.
AT_ONCE: dict[str, set[str]] = {
    "cli/": {"click"},
    "cli/screen": {"textual"},
    "client/": {"httpx"},
    "documents/commands": {"click"},
    "documents/routes": {"fastapi"},
    "engines/": {"billiard", "celery", "dramatiq", "kombu", "redis", "rq", "taskiq"},
    "stores/redis": {"hiredis", "redis"},
    "testing/": {"hypothesis", "pytest"},
    "tqdm": {"tqdm"},
    "web/": {"fastapi", "pydantic", "pydantic_core", "starlette"},
}

# Rings that work with nothing but the standard library installed.
BARE = ["milepost", "milepost.core", "milepost.stores", "milepost.tracking", "milepost.manager", "milepost.documents"]


def tracked_files() -> list[Path]:
    """Return the files that git tracks and that are there, the rules' own tests aside: they hold bad examples."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git clone")
    names = [name for name in done.stdout.decode().split("\0") if name and not name.startswith("tests/architecture/")]
    return [path for name in names if (path := ROOT / name).is_file()]


def test_no_file_is_long() -> None:
    assert rules.too_long(SOURCE, LONGEST, LONGER) == []


def test_every_name_says_something() -> None:
    assert rules.names_that_say_nothing(SOURCE) == []


@pytest.mark.parametrize("tree", ["src", "scripts", "benchmarks", "examples", "tests"])
def test_every_module_says_what_it_is(tree: str) -> None:
    assert rules.without_docstring(ROOT / tree, blank=tree == "tests") == []


def test_no_statement_of_a_store_knows_a_status() -> None:
    assert rules.status_words(SOURCE / "stores" / "statements") == []


def test_core_is_values_and_rules() -> None:
    assert rules.impure_core(SOURCE / "core", "milepost.core") == []


def test_other_packages_are_imported_where_they_are_used() -> None:
    assert rules.third_party_imports(SOURCE, "milepost", AT_ONCE) == []


@pytest.mark.parametrize("module", BARE)
def test_importing_brings_no_other_package(module: str) -> None:
    assert loaded_by(f"import {module}") - {"milepost"} == set()


def test_no_address_of_a_machine_or_a_package_index_is_tracked() -> None:
    assert rules.addresses(tracked_files(), ROOT) == []


@pytest.mark.parametrize("text", ["README.md", "CONTRIBUTING.md", ".ci/run", "scripts/demo.sh"])
def test_every_command_that_we_name_is_in_the_makefile(text: str) -> None:
    assert rules.unknown_commands((ROOT / text).read_text(), (ROOT / "Makefile").read_text()) == []


@pytest.mark.parametrize("target", ["lint", "types", "test", "test-slow"])
def test_ci_runs_the_commands_that_people_run(target: str) -> None:
    assert f"make {target}" in (ROOT / ".ci" / "run").read_text()
    assert f"`make {target}`" in (ROOT / "CONTRIBUTING.md").read_text()


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules outside the standard library that a statement loads in a new interpreter."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
