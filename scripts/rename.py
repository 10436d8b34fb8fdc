"""Apply a table of renames to the repository: python scripts/rename.py scripts/renames.txt

A line of the table is one rename:

    package PATH DOCSTRING               a new package with its docstring
    file OLD NEW                         a file moves; imports, dotted names and paths in texts follow
    name OLD NEW [GLOB ...]              a Python identifier, in the files of these (old) paths
    name! OLD NEW [GLOB ...]             the same, and strings that are exactly OLD
    text OLD NEW GLOB ...                a whole word in files that are not Python
    test PATH OLD NEW                    a test function or class

Run it on a clean checkout of the commit that the table was written for. Names in the braces of f-strings, in backticks
of docstrings, comments and Markdown follow their identifier, and so do strings in `__all__`, `__slots__` and `setattr`.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

PYTHON = ("src/*", "tests/*", "scripts/*", "benchmarks/*", "examples/*", "hatch_build.py", "dashboard/*")
TEXTS = {
    ".md",
    ".toml",
    ".yml",
    ".lua",
    ".sql",
    ".ts",
    ".tsx",
    ".js",
    ".css",
    ".json",
    ".txt",
    ".sh",
    ".in",
    ".html",
    "",
}
EXEMPT = (
    "scripts/rename*", "requirements/*", "dashboard/package-lock.json", "docs/openapi.json", "src/milepost/web/static/*",
    "*/data/*", "CHANGELOG.md", "tests/original/test_as_written.py", "tests/original/test_usage_examples.py",
)  # fmt: skip


@dataclass
class Table:
    """What the lines say."""

    packages: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    names: list[tuple[str, str, tuple[str, ...], bool]] = field(default_factory=list)
    texts: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    tests: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def read(cls, lines: Iterable[str]) -> Table:
        """Read the lines of a table. Raises SystemExit with the number of a line that cannot be read."""
        table = cls()
        for number, line in enumerate(lines, 1):
            if line.startswith("package "):
                _, path, docstring = line.split(maxsplit=2)
                table.packages[path.removesuffix("/__init__.py").rstrip("/")] = docstring.strip().strip('"')
                continue
            match line.partition("#")[0].split():
                case []:
                    pass
                case ["file", old, new]:
                    table.files[old] = new
                case ["name" | "name!" as kind, old, new, *globs]:
                    table.names.append((old, new, tuple(globs) or PYTHON, kind == "name!"))
                case ["text", old, new, *globs] if globs:
                    table.texts.append((old, new, tuple(globs)))
                case ["test", path, old, new]:
                    table.tests[path][old] = new
                case _:
                    raise SystemExit(f"line {number}: {line.strip()}")
        return table

    def names_of(self, path: str) -> tuple[dict[str, str], set[str]]:
        """Return the renames of a Python file, by its old path, and those that hold for whole strings too."""
        names: dict[str, str] = {}
        exact: set[str] = set()
        for old, new, globs, in_strings in self.names:
            if any(fnmatch(path, glob) for glob in globs):
                if names.setdefault(old, new) != new:
                    print(f"{path}: {old} becomes {names[old]} and {new}")
                if in_strings or old[0] == "_" or old[0].isupper():
                    exact.add(old)
        return names, exact


def module_of(path: str) -> str:
    """Return the dotted name of a Python file."""
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def longest(moved: Mapping[str, str], name: str) -> str:
    """Return a dotted name with its longest known prefix replaced."""
    head, tail = name, ""
    while head:
        if head in moved:
            return moved[head] + tail
        head, dot, last = head.rpartition(".")
        tail = dot + last + tail
    return name


SETTERS = {"setattr", "getattr", "hasattr", "delattr", "attrgetter", "methodcaller"}


class Renamer:
    """The renames of one table, ready to be applied to the text of a file."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.modules = {module_of(a): module_of(b) for a, b in table.files.items() if a.endswith(".py")}
        self._dotted = re.compile(r"(?<![\w./])(?:milepost|tests|benchmarks|scripts)(?:\.[A-Za-z_]\w*)+")
        self._relative = re.compile(r"(?<=[\"'])[a-z_]+(?:\.[a-z_]+)+(?=[\"'])")  # as in "manager.watching"
        self._paths = self._suffixes()
        self._path = re.compile(r"(?<![\w/.-])[\w.-]+(?:/[\w.-]+)+")
        self._tests = self._everywhere()

    def _suffixes(self) -> dict[str, str]:
        """Return old and new paths from any directory on, where only one file is meant."""
        found: dict[str, set[str]] = defaultdict(set)
        for old, new in self.table.files.items():
            parts, targets = old.split("/"), new.split("/")
            for start in range(len(parts) - 1):
                root = 2 if old.startswith("src/milepost/") else 1 if start else 0
                kept = "/".join(targets[min(start, root) :]) if start else new
                if start > root:  # from inside a package: the new file with as many directories
                    kept = "/".join(targets[-(len(parts) - start) :])
                found["/".join(parts[start:])].add(kept)
        return {old: next(iter(new)) for old, new in found.items() if len(new) == 1}

    def _everywhere(self) -> dict[str, str]:
        """Return the tests whose old name means one new name, for references from other files."""
        found: dict[str, set[str]] = defaultdict(set)
        for tests in self.table.tests.values():
            for old, new in tests.items():
                found[old].add(new)
        return {old: next(iter(new)) for old, new in found.items() if len(new) == 1 and old.startswith("test_")}

    def python(self, path: str, source: str) -> str:
        """Return the new text of a Python file."""
        names, exact = self.table.names_of(path)
        names = {**self._tests, **names, **self.table.tests.get(path, {})}
        exact |= set(self._tests)
        source = self._imports(source)
        source = self._references(source)
        return substitute(source, names, exact)

    def text(self, path: str, source: str) -> str:
        """Return the new text of any other file."""
        source = self._references(source)
        words = {old: new for old, new, globs in self.table.texts if any(fnmatch(path, glob) for glob in globs)}
        if words:
            source = replace_words(words)(source)
        if path.endswith(".md"):
            everywhere = {old: new for old, new, globs, _ in self.table.names if globs == PYTHON} | self._tests
            in_code = replace_words(everywhere)
            pattern = re.compile(r"^```.*?^```|`[^`\n]+`", re.M | re.S)
            source = pattern.sub(lambda found: in_code(found.group()), source)
        return source

    def _references(self, source: str) -> str:
        source = self._dotted.sub(lambda found: longest(self.modules, found.group()), source)
        source = self._relative.sub(lambda found: longest(self.modules, f"milepost.{found.group()}")[9:], source)
        return self._path.sub(self._new_path, source)

    def _new_path(self, found: re.Match[str]) -> str:
        whole, tail = found.group(), ""
        if whole[-1] == ".":
            whole, tail = whole[:-1], "."
        return self._paths.get(whole, whole) + tail

    def _imports(self, source: str) -> str:
        """Move `from package import module` to the package where the module is now."""
        lines = source.splitlines(keepends=True)
        renamed: dict[str, str] = {}
        tree = ast.parse(source)
        for node in sorted(ast.walk(tree), key=lambda node: -getattr(node, "lineno", 0)):
            if not isinstance(node, ast.ImportFrom) or node.level or node.module is None:
                continue
            moved = [alias for alias in node.names if f"{node.module}.{alias.name}" in self.modules]
            if not moved:
                continue
            new: list[str] = []
            for alias in node.names:
                target = self.modules.get(f"{node.module}.{alias.name}", f"{node.module}.{alias.name}")
                package, _, name = target.rpartition(".")
                if alias in moved and alias.asname is None and name != alias.name:
                    renamed[alias.name] = name
                new.append(f"from {package} import {name}" + (f" as {alias.asname}" if alias.asname else ""))
            assert node.end_lineno is not None
            comment = "".join(re.findall(r"  # .*", "".join(lines[node.lineno - 1 : node.end_lineno])))
            indent = " " * node.col_offset
            lines[node.lineno - 1 : node.end_lineno] = [f"{indent}{text}{comment}\n" for text in new]
        result = "".join(lines)
        return substitute(result, renamed, set(), attributes=False) if renamed else result


def replace_words(words: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that replaces whole words of a text."""
    if not words:
        return lambda text: text
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, sorted(words, key=len, reverse=True))) + r")(?!\w)")
    return lambda text: pattern.sub(lambda found: words[found.group()], text)


def substitute(source: str, names: Mapping[str, str], exact: set[str], *, attributes: bool = True) -> str:
    """Rename the identifiers of a Python source, but for the modules of its import statements.

    Without `attributes`, attributes, keywords of calls and imported names stay as well.
    """
    if not names:
        return source
    in_text = replace_words(names)
    out: list[str] = []
    lines = source.splitlines(keepends=True)
    row, column = 1, 0
    in_module = in_exports = False
    before = ""
    setting = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string
        if token.type == tokenize.NAME:
            if text in ("from", "import") and before in ("", "\n", ":", ";"):
                in_module = True
            elif text == "import":
                in_module = not attributes
            elif text in ("__all__", "__slots__"):
                in_exports = True
            elif text in names and not in_module and (attributes or not _is_other(before, token)):
                text = names[text]
        elif token.type == tokenize.STRING:
            text = _string(text, names, set(names) if in_exports or (before == "," and setting) else exact, in_text)
        elif token.type == tokenize.COMMENT:
            text = re.sub(r"`[^`]+`", lambda found: in_text(found.group()), text)
        if token.type == tokenize.NAME:
            setting = text in SETTERS or (setting and before in ("(", "."))
        elif text in (")", "]"):
            setting = False
        if token.type == tokenize.NEWLINE:
            in_module, in_exports, before = False, False, "\n"
        elif token.type == tokenize.NL:
            in_module, before = False, "\n"
        elif token.type in (tokenize.INDENT, tokenize.DEDENT):
            before = "\n"
        elif token.type != tokenize.COMMENT:
            before = token.string
        while row < token.start[0]:
            out.append(lines[row - 1][column:])
            row, column = row + 1, 0
        if token.type not in (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER, tokenize.DEDENT, tokenize.INDENT):
            out.append(lines[row - 1][column : token.start[1]] + text)
            row, column = token.end
    while row <= len(lines):
        out.append(lines[row - 1][column:])
        row, column = row + 1, 0
    return "".join(out)


def _is_other(before: str, token: tokenize.TokenInfo) -> bool:
    """Return whether a name is an attribute or a keyword of a call, and so not the module of that name."""
    return before == "." or re.match(r"=[^=]", token.line[token.end[1] :]) is not None


def _string(text: str, names: Mapping[str, str], exact: set[str], in_text: Callable[[str], str]) -> str:
    prefix = re.match(r"[A-Za-z]*", text)
    assert prefix is not None
    quote = text[prefix.end() :]
    body = quote.strip("\"'")
    if body in exact and body in names:
        return text.replace(body, names[body])
    if "f" in prefix.group().lower():
        text = re.sub(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", lambda found: in_text(found.group()), text)
    return re.sub(r"``?[^`\n]+``?|::\w+", lambda found: in_text(found.group()), text)


def main(path: str) -> int:
    """Apply the table to the tracked files of this directory."""
    table = Table.read(Path(path).read_text().splitlines())
    renamer = Renamer(table)
    tracked = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, tracked):
        file = Path(name)
        if not file.is_file() or file.is_symlink():
            continue
        target = Path(table.files.get(name, name))
        exempt = any(fnmatch(name, glob) for glob in EXEMPT)
        if not exempt and (file.suffix == ".py" or file.suffix in TEXTS):
            try:
                source = file.read_text()
            except UnicodeDecodeError:
                source = ""
            changed = source
            if source:
                changed = (renamer.python if file.suffix == ".py" else renamer.text)(name, source)
            if changed != source:
                file.write_text(changed)
        if target != file:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(file, target)
    for package, docstring in table.packages.items():
        init = Path(package) / "__init__.py"
        init.parent.mkdir(parents=True, exist_ok=True)
        if not init.exists():
            init.write_text(f'"""{docstring}"""\n')
    for folder in sorted({Path(old).parent for old in table.files}, reverse=True):
        if folder.is_dir() and not any(path.name != "__pycache__" for path in folder.iterdir()):
            subprocess.run(["rm", "-r", str(folder)], check=True)
    subprocess.run(["git", "add", "-A"], check=True)
    trees = ["src", "tests", "scripts", "benchmarks", "examples"]
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--quiet", "--fix", "--select", "I,RUF022,RUF023", *trees], check=False)
    subprocess.run([*ruff, "format", "--quiet", *trees], check=False)
    subprocess.run(["git", "add", "-A"], check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
