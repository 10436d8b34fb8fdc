"""The environment of arq, which needs an older redis-py than milepost: `.arq/`, made when it is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".arq"
PACKAGES = ("arq==0.28.0", "httpx>=0.27")


def arq_environment() -> Path:
    """Return the folder of the environment, with milepost from this checkout; make it first unless it is up to date."""
    made = FOLDER / ".made"
    if made.is_file() and made.read_text().split() == list(PACKAGES):
        return FOLDER
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    pip = [str(FOLDER / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *PACKAGES], check=True)
    (site,) = FOLDER.glob("lib/python*/site-packages")
    (site / "milepost.pth").write_text(f"{ROOT / 'src'}\n")
    made.write_text("\n".join(PACKAGES))
    return FOLDER
