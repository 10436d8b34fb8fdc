"""Fetch documents for the demo: ``python scripts/demo_corpus.py FOLDER``.

Puts the nine English pages of Debian's package `debian-history` (GPL-2+) into FOLDER,
fetched by apt and unpacked without being installed. Where there is no apt or no
network, the topics of Python's own documentation are written there instead. Run again
it does nothing. Needs the standard library only, prints one line, exits with 0.
"""

from __future__ import annotations

import os
import pydoc_data.topics
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "debian-history"
PAGES = f"usr/share/doc/{PACKAGE}/docs"
SECONDS = 120


def main(folder: Path) -> str:
    """Fill the folder and return one line that describes its contents."""
    if folder.is_dir() and any(folder.iterdir()):
        return f"{sum(1 for _ in folder.iterdir())} documents in {folder}, fetched before"
    try:
        pages = debian_history(folder)
    except (OSError, subprocess.SubprocessError) as error:
        topics = python_topics(folder)
        return f"{topics} topics of Python's documentation in {folder} ({PACKAGE} could not be fetched: {why(error)})"
    return f"{pages} pages of {PACKAGE} in {folder}"


def debian_history(folder: Path) -> int:
    """Copy the English pages of the package, installed or fetched. Return their number."""
    installed = Path("/", PAGES)
    if any(installed.glob("*.en.html")):
        return put_in_place(installed, "*.en.html", folder)
    with tempfile.TemporaryDirectory(prefix="milepost-corpus-") as cache:
        return put_in_place(unpack(PACKAGE, cache) / PAGES, "*.en.html", folder)


def unpack(package: str, cache: str) -> Path:
    """Fetch a Debian package and unpack it without installing it. Return the root of its files."""
    os.chmod(cache, 0o777)  # apt downloads as a user of its own when it is run by root
    try:
        run(["apt-get", "download", package], cache)
    except subprocess.CalledProcessError:
        run(["apt-get", "update"], cache)  # a fresh machine has no package lists
        run(["apt-get", "download", package], cache)
    packages = list(Path(cache).glob(f"{package}_*.deb"))
    if not packages:
        raise FileNotFoundError(f"apt-get downloaded no {package}")
    run(["dpkg-deb", "-x", packages[0].name, "unpacked"], cache)
    return Path(cache, "unpacked")


def python_topics(folder: Path) -> int:
    """Write each topic of Python's built-in help to a text file. Return the number of files."""
    with tempfile.TemporaryDirectory(prefix="milepost-corpus-") as cache:
        for name, text in pydoc_data.topics.topics.items():
            Path(cache, f"{name}.txt").write_text(text, encoding="utf-8")
        return put_in_place(Path(cache), "*.txt", folder)


def put_in_place(source: Path, pattern: str, folder: Path) -> int:
    """Copy files with their relative paths; the folder appears with all files or not at all."""
    files = sorted(path for path in source.glob(pattern) if path.is_file())
    if not files:
        raise FileNotFoundError(f"no {pattern} in {source}")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for file in files:
        copy = part / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    if folder.exists():
        folder.rmdir()  # it is empty
    part.replace(folder)
    return len(files)


def run(command: list[str], where: str) -> None:
    """Run a command without output."""
    subprocess.run(command, cwd=where, check=True, capture_output=True, text=True, timeout=SECONDS)


def why(error: Exception) -> str:
    """Return the last line of a command's output, or the error."""
    said = getattr(error, "stderr", None) or str(error)
    return " ".join(str(said).strip().splitlines()[-1:])[:200] or type(error).__name__


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/demo_corpus.py FOLDER")
    print(main(Path(sys.argv[1])))
