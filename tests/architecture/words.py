"""The words that the glossary rejects, and where a text uses them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = {".py", ".md", ".ts", ".tsx", ".js", ".lua", ".sql", ".toml", ".yml", ".sh"}
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def rejected(glossary: str) -> list[str]:
    """Return the words in the columns "not" of the tables of the glossary."""
    words: list[str] = []
    column = -1
    for line in glossary.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")] if line.startswith("|") else []
        if "not" in cells:
            column = cells.index("not")
        elif 0 <= column < len(cells) and not cells[column].startswith("---"):
            words += [word for word in re.split(r", ", cells[column].strip(" |")) if word]
    return words


def pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of these words, alone or with the endings of a plural or a verb."""
    forms = [re.escape(word).replace(r"\ ", r"\s+") for word in words]
    return re.compile(r"\b(?:" + "|".join(forms) + r")(?:s|es|ed|ing)?\b")


def plain(text: str) -> str:
    """Return a text in lower case, with the words of identifiers apart: `shelf_get` and `ShelfGet` are "shelf get"."""
    return CAMEL.sub(" ", text).replace("_", " ").lower()


def found_in(text: str, words: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield line number and word for each rejected word of a text: code, comments, strings and prose alike."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in words.finditer(plain(line)):
            yield number, found.group()


def found_in_files(files: Iterable[Path], root: Path, words: re.Pattern[str]) -> list[str]:
    """Return "path:line: word" for each rejected word in the contents and the names of files."""
    found: list[str] = []
    for path in files:
        name = path.relative_to(root).as_posix()
        found += [f"{name}: {match.group()}" for match in words.finditer(plain(name).replace("/", " "))]
        found += [f"{name}:{number}: {word}" for number, word in found_in(path.read_text(), words)]
    return found


def main(arguments: list[str]) -> int:
    """Print the rejected words in the tracked files below these paths; return 1 when there are any."""
    root = Path(__file__).resolve().parents[2]
    listed = subprocess.run(["git", "ls-files", "-z", *arguments], cwd=root, capture_output=True, text=True, check=True)
    files = [root / name for name in listed.stdout.split("\0") if Path(name).suffix in SUFFIXES]
    glossary = (root / "docs" / "glossary.md").read_text()
    found = found_in_files([path for path in files if path.is_file()], root, pattern(rejected(glossary)))
    print(*found, sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
