"""The footprint of milepost: start-up time beyond Python's, size of the wheel, and size of each extra."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from benchmarks.environment import pin
from benchmarks.install import ROOT
from benchmarks.surveys import Table, figure

START = {
    "`import milepost`": ["-c", "import milepost"],
    "`from milepost import Jobs`": ["-c", "from milepost import Jobs"],
    "`import milepost.client`": ["-c", "import milepost.client"],
    "`import milepost.web`": ["-c", "import milepost.web"],
    "`milepost --help`": ["-c", "import sys; from milepost.cli import main; sys.argv = ['milepost', '--help']; main()"],
}
MOST = {"`import milepost`": 60.0, "`milepost --help`": 150.0}


def survey(size: int) -> Table:
    """Measure start-up CPU time in `size` interleaved runs; with more than one, also the size of installed packages."""
    pin(1)
    rows = _start_up(size)
    if size > 1:
        rows += _packages()
    return Table("footprint", ["what", "measured", "at most"], rows)


def _start_up(runs: int) -> list[list[str]]:
    times: dict[str, list[float]] = {name: [] for name in ("python", *START)}
    for _ in range(runs):
        for name, arguments in {"python": ["-c", "pass"], **START}.items():
            before = os.times()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            times[name].append(spent * 1e3)
    base = statistics.median(times["python"])
    return [
        [
            name,
            f"{statistics.median(times[name]) - base:.0f} ms of CPU over `python -c pass`",
            f"{MOST[name]:.0f} ms" if name in MOST else "",
        ]
        for name in START
    ]


def _packages() -> list[list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory(prefix="milepost-bench-") as place:
        _pip("wheel", "--no-deps", "--wheel-dir", place, str(ROOT))
        (wheel,) = Path(place).glob("*.whl")
        rows = [["wheel", f"{wheel.stat().st_size / 1e3:,.0f} kB", ""]]
        for extra in ("", *project["optional-dependencies"]):
            if extra == "dev":
                continue
            folder = Path(place) / f"installed-{extra}"
            _pip("install", "--target", str(folder), f"{wheel}[{extra}]" if extra else str(wheel))
            packages = {re.sub(r"-[^-]*\.dist-info$", "", path.name) for path in folder.glob("*.dist-info")} - {
                "milepost"
            }
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            shown = f"`milepost[{extra}]`" if extra else "`milepost`"
            rows.append([shown, f"{figure(size / 1e6)} MB, {len(packages)} other packages", ""])
    return rows


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: {' '.join(command)} failed:\n{done.stderr}")
