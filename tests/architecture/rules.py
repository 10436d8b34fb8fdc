"""The rules of the house as functions: each takes a source tree and returns one line for each breach.

Nothing here knows which exceptions milepost makes; those, with their reasons, are in `test_house.py`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

NAMES_THAT_SAY_NOTHING = frozenset({"util", "utils", "helper", "helpers", "common", "base", "misc"})
STATUS_WORD = re.compile(r"\b(pending|running|completed|failed|cancelled)\b", re.IGNORECASE)
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})
OUTSIDE_WORLD = frozenset(
    {"asyncio", "concurrent", "http", "io", "logging", "multiprocessing", "os", "random", "secrets", "select", "shutil"}
    | {"signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib"}
)

# A path that exists on somebody's machine only, and an address of a package index. In parts, so that this file
# does not find itself.
MACHINE_PATH = re.compile(
    r"(?<![\w./~}>*-])/(?:"
    + "|".join(["root", "work", r"home/[a-z]\w*", r"Users/\w+", "mnt", "opt/wheels"])
    + r")(?:/\w|\b(?=[\s'\"`]))"
)
PACKAGE_HOST = re.compile(
    "|".join(
        [
            "python" + r"hosted\.org",
            "pypi" + r"\.org/simple",
            "registry" + r"\.npmjs",
            r"deb\." + r"debian\.org",
            r"--(?:extra-)?index-" + r"url[= ]+\S*//",
            r"--find-" + r"links[= ]+\S*/",
            r"/api/pypi/|/repository/pypi|/simple/?[\"'\s]",
        ]
    )
)


def modules(tree: Path) -> Iterator[tuple[str, Path]]:
    """Yield each Python file with its path from the tree's root, in order."""
    for path in sorted(tree.rglob("*.py")):
        yield path.relative_to(tree).as_posix(), path


def too_long(tree: Path, limit: int, exceptions: Mapping[str, str]) -> list[str]:
    """Find files over `limit` lines, and exceptions that are no longer needed or give no reason."""
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(tree)}
    breaches = [f"{name}: {count} lines" for name, count in lines.items() if count > limit and name not in exceptions]
    for name, reason in exceptions.items():
        if lines.get(name, 0) <= limit:
            breaches.append(f"{name}: the exception is not needed")
        if not reason.strip():
            breaches.append(f"{name}: the exception gives no reason")
    return breaches


def names_that_say_nothing(tree: Path) -> list[str]:
    """Find files and folders with a name such as `utils`."""
    return [
        name
        for name, _ in modules(tree)
        if NAMES_THAT_SAY_NOTHING & {part.removesuffix(".py") for part in name.split("/")}
    ]


def without_docstring(tree: Path, *, blank: bool = False) -> list[str]:
    """Find modules that do not open with what they are; `blank` lets files without any code be."""
    return [
        name
        for name, path in modules(tree)
        if not ast.get_docstring(module := _parse(path)) and (module.body or not blank)
    ]


def status_words(statements: Path) -> list[str]:
    """Find status words in statement files: a store applies what it is given and decides nothing."""
    return [
        f"{path.relative_to(statements).as_posix()}:{number}: {found[0]}"
        for path in sorted(statements.rglob("*"))
        if path.suffix in {".lua", ".sql"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (found := STATUS_WORD.search(line))
    ]


def third_party_imports(tree: Path, package: str, allowed: Mapping[str, Collection[str]]) -> list[str]:
    """Find imports, run when a module is imported, of packages that are not allowed in that place.

    `allowed` maps the beginning of a path to packages. An import in a function or for type checkers is free.
    """
    breaches = []
    for name, path in modules(tree):
        here = {third for prefix, thirds in allowed.items() if name.startswith(prefix) for third in thirds}
        for imported, line in _imports(_on_import(_parse(path).body)):
            top = imported.partition(".")[0]
            if top not in sys.stdlib_module_names | here | {package}:
                breaches.append(f"{name}:{line}: {top}")
    return breaches


def impure_core(core: Path, package: str) -> list[str]:
    """Find what a core of values and rules must not have, in functions too: other packages, I/O, a clock."""
    breaches = []
    for name, path in modules(core):
        tree = _parse(path)
        for imported, line in _imports(ast.walk(tree)):
            top = imported.partition(".")[0]
            ours = imported == package or imported.startswith(package + ".")
            if not ours and (top not in sys.stdlib_module_names or top in OUTSIDE_WORLD):
                breaches.append(f"{name}:{line}: imports {imported}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in CLOCK_CALLS:
                breaches.append(f"{name}:{node.lineno}: reads a clock with .{called.attr}()")
            if isinstance(called, ast.Name) and called.id in {"open", "print", "input"}:
                breaches.append(f"{name}:{node.lineno}: calls {called.id}()")
    return breaches


def addresses(files: Iterable[Path], root: Path) -> list[str]:
    """Find paths of a machine and addresses of package indexes in text files; a lock file may hold no address at all."""
    breaches = []
    for path in files:
        name = path.relative_to(root).as_posix()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        lock = name.startswith("requirements/")
        for number, line in enumerate(lines, 1):
            found = MACHINE_PATH.search(line) or PACKAGE_HOST.search(line) or (re.search("://", line) if lock else None)
            if found:
                breaches.append(f"{name}:{number}: {found[0].strip()}")
    return breaches


def unknown_commands(text: str, makefile: str) -> list[str]:
    """Find `make TARGET` in the code of a Markdown or script text that the Makefile does not have."""
    targets = {
        target
        for line in makefile.splitlines()
        if (rule := re.match(r"([\w .-]+?)\s*:(?!=)", line))
        for target in rule[1].split()
    }
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)) if "`" in text else text
    return sorted(set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)\b(?!=)", code)) - targets)


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _on_import(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when the module is imported: not in functions, not for type checkers."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _on_import(node.orelse)
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from _on_import(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _on_import(handler.body)


def _imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yield the absolute names that import statements name, with their lines."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno
