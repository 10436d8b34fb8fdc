"""Show what became of the tests of an earlier commit: python scripts/test_ids.py COMMIT [TABLE ...]

Prints each test function of COMMIT that, under the renames of the tables (`scripts/rename*.txt` by default), is not there
any more, and the count of those that are.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from rename import Table

ROOT = Path(__file__).resolve().parents[1]
TREES = ("tests/", "src/milepost/testing/")


def tests_of(path: str, source: str) -> Iterator[tuple[str, str]]:
    """Yield class (or nothing) and name of each test function of a module."""
    for node in ast.parse(source).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        owner = node.name if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)) and member.name.startswith("test_"):
                yield owner, member.name


def tests_at(commit: str) -> Iterator[tuple[str, str]]:
    """Yield path and name of each test function of a commit."""
    asked = ["git", "-C", str(ROOT), "archive", commit, *TREES]
    archive = subprocess.run(asked, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            content = files.extractfile(member) if member.name.endswith(".py") else None
            if content is not None:
                for _, name in tests_of(member.name, content.read().decode()):
                    yield member.name, name


def main(commit: str, *paths: str) -> int:
    """Compare the tests of a commit with those that are there."""
    tables = [
        Table.read(Path(path).read_text().splitlines())
        for path in paths or sorted(map(str, ROOT.glob("scripts/rename*.txt")))
    ]
    now: dict[str, set[str]] = {}
    for tree in TREES:
        for file in (ROOT / tree).rglob("*.py"):
            name = file.relative_to(ROOT).as_posix()
            now[name] = {test for _, test in tests_of(name, file.read_text())}
    everywhere = set().union(*now.values())
    kept, moved, gone = 0, 0, []
    for path, test in tests_at(commit):
        new_path, new_test = path, test
        for table in tables:
            new_test = table.tests.get(new_path, {}).get(new_test, new_test)
            new_path = table.files.get(new_path, new_path)
        if new_test in now.get(new_path, ()):
            kept += 1
        elif new_test in everywhere:
            moved += 1
        else:
            gone.append(f"{path}::{test}  expected at {new_path}::{new_test}")
    print(*gone, sep="\n")
    print(f"{kept} tests are where the tables say, {moved} in another file, {len(gone)} have no place")
    return int(bool(gone))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
