"""Write every text that people read to a file, so that a change of one is seen: python scripts/texts.py [FILE]

Texts are the strings of src/milepost that hold words (errors, help, log lines, labels, descriptions; not docstrings, but
those of commands), and the strings and texts of elements of the dashboard. `{}` stands for a value.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "tests" / "architecture" / "texts.txt"
PROSE = re.compile(r"[A-Za-z]{2,}[^A-Za-z]* [^A-Za-z]*[A-Za-z{]")
SCRIPT_STRING = re.compile(r"\"([^\"\n\\]*(?:\\.[^\"\n\\]*)*)\"|`([^`]*)`|>([^<>{}\n]*[A-Za-z][^<>{}\n]*)<")
CODE = re.compile(r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|PRAGMA|local|if|return)\b|[;{}]\s*\n|=>|className")


def of_python(source: str, *, is_command: bool) -> Iterator[str]:
    """Yield the texts of a module in their order."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                is_help = is_command and isinstance(node, ast.FunctionDef) and bool(node.decorator_list)
                if not is_help:
                    docstrings.add(first.value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)  # the docstring of an attribute
    parts = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and node not in parts:
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in docstrings
            and node not in parts
        ):
            text = node.value
        else:
            continue
        found.append((node.lineno, node.col_offset, text))
    for _, _, text in sorted(found):
        yield text


def of_script(source: str) -> Iterator[str]:
    """Yield the strings of TypeScript, and the texts between its tags."""
    for found in SCRIPT_STRING.finditer(re.sub(r"^\s*(//|import ).*$|/\*.*?\*/", "", source, flags=re.M | re.S)):
        yield re.sub(r"\$\{[^}]*\}", "{}", next(group for group in found.groups() if group is not None))


def snapshot() -> str:
    """Return all texts, by file."""
    lines = []
    for path in sorted([*(ROOT / "src" / "milepost").rglob("*.py"), *(ROOT / "dashboard" / "src").rglob("*.ts*")]):
        name = path.relative_to(ROOT).as_posix()
        if "/conformance/" in name or ".gen." in name:
            continue
        source = path.read_text()
        texts = (
            of_python(source, is_command="/cli/" in name or name.endswith("/commands.py"))
            if path.suffix == ".py"
            else of_script(source)
        )
        said = [" ".join(text.split()) for text in texts if PROSE.search(text) and not CODE.search(text)]
        if said:
            lines += [f"== {name}", *said, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else TARGET).write_text(snapshot())
