"""import-linter's contracts hold, and each of them can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts in a folder's pyproject.toml on the package in its src."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [str(LINT), "--config", "pyproject.toml", "--no-cache", "--no-logo"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_point_inward() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("core/planted.py", "from milepost import stores", "layers: imports point inward only"),
        ("stores/planted.py", "import milepost.manager", "layers: imports point inward only"),
        ("web/planted.py", "import milepost.integrations", "layers: imports point inward only"),
        ("testing/planted.py", "import milepost.cli", "testing may import all but the command line"),
        ("worker/planted.py", "import milepost.testing", "nothing imports testing"),
    ],
)
def test_forbidden_import_breaks_its_contract(tmp_path: Path, module: str, line: str, broken: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in sorted((ROOT / "src" / "milepost").glob("*/__init__.py")):
        copy = tmp_path / "src" / "milepost" / package.parent.name / "__init__.py"
        copy.parent.mkdir(parents=True)
        copy.touch()
    (tmp_path / "src" / "milepost" / "__init__.py").touch()
    assert lint(tmp_path).returncode == 0

    (tmp_path / "src" / "milepost" / module).write_text(f"{line}\n")

    done = lint(tmp_path)
    assert done.returncode == 1
    assert f"{broken} BROKEN" in done.stdout
