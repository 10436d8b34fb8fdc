#!/usr/bin/env python3
"""Print how large the package is: files, statements and long files. The goals of today's features are beside them.

A statement is a Python statement of the syntax tree, including imports and definitions, without docstrings.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 400
GOALS = {"Python files": 180, "Python statements": 21_500, "SQL and Lua files": 20, f"files over {MAX_LINES} lines": 0}


def statements(source: str) -> int:
    """Return the number of statements of a Python source, without docstrings and other bare strings."""
    return sum(isinstance(node, ast.stmt) and not _is_text(node) for node in ast.walk(ast.parse(source)))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def sizes(tree: Path) -> dict[str, int]:
    """Return the sizes of a source tree, by the names of the goals."""
    python = {path: path.read_text(encoding="utf-8") for path in tree.rglob("*.py")}
    others = {path: path.read_text(encoding="utf-8") for path in tree.rglob("*") if path.suffix in (".sql", ".lua")}
    long = [path for path, text in {**python, **others}.items() if text.count("\n") > MAX_LINES]
    counts = (len(python), sum(map(statements, python.values())), len(others), len(long))
    return dict(zip(GOALS, counts, strict=True))


def table(found: Mapping[str, int]) -> str:
    """Return the sizes beside their goals, one a line."""
    return "\n".join(f"{name:<22}{found[name]:>8,}   goal: at most {goal:,}" for name, goal in GOALS.items())


if __name__ == "__main__":
    print(table(sizes(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "src")))
