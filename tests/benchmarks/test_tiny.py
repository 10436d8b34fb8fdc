"""Every work by every peer that is installed here, at a tiny size: kept working, never timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.works import WORKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.service("redis-server")
@pytest.mark.parametrize("name", WORKS)
def test_a_work_runs(name, tmp_path):
    work = WORKS[name]
    kept = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--tiny", "--json", str(kept)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(kept.read_text())[name]
    assert "milepost" in figures
    assert set(figures) <= set(work.peers)
    assert all(figure > 0 for values in figures.values() for figure in values)


def test_an_unknown_work_is_named():
    command = [sys.executable, "-m", "benchmarks", "W99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no work 'W99'; there are W1" in done.stderr
