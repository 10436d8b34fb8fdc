"""Architecture rules as functions. Each takes a source tree and returns one line for each violation.

Exceptions, with their reasons, are in `test_architecture.py`.
"""

from __future__ import annotations

import ast
import gc
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

VAGUE_NAMES = frozenset({"util", "utils", "helper", "helpers", "common", "base", "misc"})
STATUS_WORD = re.compile(r"\b(pending|running|completed|failed|cancelled)\b", re.IGNORECASE)
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})
OUTSIDE_WORLD = frozenset(
    {"asyncio", "concurrent", "http", "io", "logging", "multiprocessing", "os", "random", "secrets", "select", "shutil"}
    | {"signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib"}
)

# Paths of one machine, and addresses of package indexes. In parts, so that this file does not match itself.
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
    """Yield each Python file with its path relative to the tree, in order."""
    for path in sorted(tree.rglob("*.py")):
        yield path.relative_to(tree).as_posix(), path


def too_long(tree: Path, limit: int, exceptions: Mapping[str, str]) -> list[str]:
    """Return files over `limit` lines, and exceptions that are not needed or have no reason."""
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(tree)}
    breaches = [f"{name}: {count} lines" for name, count in lines.items() if count > limit and name not in exceptions]
    for name, reason in exceptions.items():
        if lines.get(name, 0) <= limit:
            breaches.append(f"{name}: the exception is not needed")
        if not reason.strip():
            breaches.append(f"{name}: the exception has no reason")
    return breaches


def vague_names(tree: Path) -> list[str]:
    """Return files and folders with a name such as `utils`."""
    return [name for name, _ in modules(tree) if VAGUE_NAMES & {part.removesuffix(".py") for part in name.split("/")}]


def without_docstring(tree: Path, *, blank: bool = False) -> list[str]:
    """Return modules without a docstring. With `blank`, files without code are allowed."""
    return [
        name
        for name, path in modules(tree)
        if not ast.get_docstring(module := _parse(path)) and (module.body or not blank)
    ]


def status_words(tree: Path) -> list[str]:
    """Return status words in SQL and Lua files. A store applies transitions and decides nothing."""
    return [
        f"{path.relative_to(tree).as_posix()}:{number}: {found[0]}"
        for path in sorted(tree.rglob("*"))
        if path.suffix in {".lua", ".sql"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (found := STATUS_WORD.search(line))
    ]


def third_party_imports(tree: Path, package: str, allowed: Mapping[str, Collection[str]]) -> list[str]:
    """Return module-level imports of packages that are not allowed in that place, and allowances that nothing uses.

    `allowed` maps path prefixes to packages. Imports in functions or for type checkers are free.
    """
    breaches = []
    unused = {(prefix, third) for prefix, thirds in allowed.items() for third in thirds}
    for name, path in modules(tree):
        here = {third for prefix, thirds in allowed.items() if name.startswith(prefix) for third in thirds}
        for imported, line in _imports(_on_import(_parse(path).body)):
            top = imported.partition(".")[0]
            unused -= {(prefix, third) for prefix, third in unused if third == top and name.startswith(prefix)}
            if top not in sys.stdlib_module_names | here | {package}:
                breaches.append(f"{name}:{line}: {top}")
    return breaches + sorted(f"{prefix}: {third} is not imported" for prefix, third in unused)


def inward_strings(tree: Path, package: str, layers: Sequence[Collection[str]]) -> list[str]:
    """Return strings that name a module of an outer layer, as `import_module` takes them.

    `layers` are the names of packages and modules in `package`, from the outermost to the innermost. A module that is in
    no layer may name all. In an f-string the text before the first value counts. Names of loggers are not checked.
    """
    level = {name: number for number, layer in enumerate(layers) for name in layer}
    breaches = []
    for name, path in modules(tree):
        here = level.get(name.partition("/")[0].removesuffix(".py"), -1)
        nodes = list(ast.walk(_parse(path)))
        loggers = {
            argument
            for node in nodes
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger")
            for argument in node.args
        }
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in loggers:
                found = re.match(rf"{package}\.(\w+)[\w.:]*$", node.value)
                if found and level.get(found[1], len(layers)) < here:
                    breaches.append(f"{name}:{node.lineno}: {node.value}")
    return sorted(set(breaches))


DOCUMENTED_PRIVATE_NAMES = frozenset({"_asdict", "_current_frames", "_exit", "_fields", "_make", "_replace", "_thread"})
"""Names of the standard library that are public in spite of their underscore."""


def private_names(tree: Path, package: str, allowed: Mapping[str, Collection[str]]) -> list[str]:
    """Return private names of other packages that are used, and allowances that nothing uses.

    `allowed` maps files to names. A name counts as our own if the tree defines it anywhere.
    """
    parsed = {name: list(ast.walk(_parse(path))) for name, path in modules(tree)}
    known = DOCUMENTED_PRIVATE_NAMES.union(
        defined for nodes in parsed.values() for node in nodes for defined in _defined(node)
    )
    used = {
        (name, private, node.lineno)
        for name, nodes in parsed.items()
        for node in nodes
        if isinstance(node, ast.expr | ast.stmt)
        for private in _private(node, package)
        if private not in known
    }
    breaches = [
        f"{name}:{line}: {private}" for name, private, line in sorted(used) if private not in allowed.get(name, ())
    ]
    unused = {(name, private) for name, names in allowed.items() for private in names} - {one[:2] for one in used}
    return breaches + [f"{name}: {private} is not used" for name, private in sorted(unused)]


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_name(node.value, "self", "cls"):
        yield node.attr


def _is_name(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _private(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the private names in an attribute, in `getattr` and the like, or in an import of another package."""
    names: list[str] = []
    if isinstance(node, ast.Attribute):
        names = [node.attr]
    elif isinstance(node, ast.Call) and _is_name(node.func, "getattr", "hasattr", "setattr", "delattr"):
        names = [
            part.value for part in node.args[1:2] if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
    elif isinstance(node, ast.Import):
        names = [part for alias in node.names for part in alias.name.split(".")]
    elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] != package:
        names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


def impure_core(core: Path, package: str) -> list[str]:
    """Return what must not be in the core, even in functions: other packages, I/O, a clock.

    Type checkers alone may read typing_extensions, which they bring along.
    """
    breaches = []
    for name, path in modules(core):
        tree = _parse(path)
        for_checkers = {line for node in ast.walk(tree) if _is_for_checkers(node) for _, line in _imports(node.body)}
        for imported, line in _imports(ast.walk(tree)):
            top = imported.partition(".")[0]
            if imported == "typing_extensions" and line in for_checkers:
                continue
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
    """Return machine paths and package index addresses in text files. A lock file may contain no address."""
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
    """Return `make TARGET` commands in Markdown or script code for which the Makefile has no target."""
    targets = {
        target
        for line in makefile.splitlines()
        if (rule := re.match(r"([\w .-]+?)\s*:(?!=)", line))
        for target in rule[1].split()
    }
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)) if "`" in text else text
    return sorted(set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)\b(?!=)", code)) - targets)


def _parse(path: Path) -> ast.Module:
    # Python before 3.11.8 raises SystemError when a collection of garbage logs a traceback, which parses too.
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    finally:
        if collects:
            gc.enable()


def _is_for_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _on_import(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run on import: not in functions, not for type checkers."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if _is_for_checkers(node):
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
