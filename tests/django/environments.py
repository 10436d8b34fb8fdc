"""The environment of Django 6, which needs a later Python than the other tests have: `.django6/`, made when it is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

from tests.services import need

ROOT = Path(__file__).resolve().parents[2]
DJANGO = "django==6.1.3"
EXTRAS = ("redis", "web", "postgres")
FOLDER = ROOT / ".django6"


def django6_python() -> str:
    """Return the Python of the environment of Django 6; make that first unless it is up to date."""
    python, made = FOLDER / "bin" / "python", FOLDER / ".made"
    wanted = [DJANGO, *_requirements()]
    if made.is_file() and made.read_text().split("\n") == wanted:
        return str(python)
    shutil.rmtree(FOLDER, ignore_errors=True)
    _run(need("python3.13"), "-m", "venv", str(FOLDER))
    locked = FOLDER / "locked.txt"
    locked.write_text(re.sub(r"\[.*?\]|( \\)?\n +(--hash|#).*", "", (ROOT / "requirements" / "dev.txt").read_text()))
    locked.write_text(re.sub(r"^django==.*\n", "", locked.read_text(), flags=re.MULTILINE))
    _run(str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-c", str(locked), *wanted)
    made.write_text("\n".join(wanted))
    return str(python)


def django_task_tests() -> Path:
    """Return the folder `tests/tasks` of the source archive of Django 6; download that first unless it is there."""
    python, source = django6_python(), FOLDER / "source"
    archive = source / f"{DJANGO.replace('==', '-')}.tar.gz"
    if not archive.is_file():
        _run(python, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--no-binary",
             "django", "--dest", str(source), DJANGO)  # fmt: skip
    folder = source / archive.name.removesuffix(".tar.gz") / "tests" / "tasks"
    with tarfile.open(archive) as tar:
        inside = folder.relative_to(source).as_posix()
        tar.extractall(source, [one for one in tar if one.name.startswith(f"{inside}/")], filter="data")
    return folder


def _requirements() -> list[str]:
    """Return what milepost needs there; milepost itself is found on the path."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [requirement for extra in EXTRAS for requirement in extras[extra]]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
