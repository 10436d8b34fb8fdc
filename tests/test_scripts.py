"""The scripts behind `make` and CI: they count tests, propagate failures and suggest remedies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.install_services import named

from tests.services import SERVICES

ROOT = Path(__file__).resolve().parents[1]

GOOD = "<testsuites><testsuite><testcase/><testcase/><testcase><skipped/></testcase></testsuite></testsuites>"
BAD = (
    "<testsuites><testsuite><testcase/><testcase><failure/></testcase>"
    "<testcase><error/></testcase></testsuite></testsuites>"
)
NONE = "<testsuites><testsuite/></testsuites>"


@pytest.fixture
def ci(tmp_path: Path) -> Path:
    """Return a folder with the CI script and, first on its PATH, a `make` that writes `TARGET.xml` as its report."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "summarize_tests.py", tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin" / "make"
    make.write_text(
        "#!/bin/sh\n"
        'echo "made $1 with CI=$CI"\n'
        '[ ! -f "$1.xml" ] || cp "$1.xml" "${2#ARGS=--junitxml=}"\n'
        '[ ! -f "$1.code" ] || exit "$(cat "$1.code")"\n'
    )
    make.chmod(0o755)
    (tmp_path / "test.xml").write_text(GOOD)
    (tmp_path / "test-slow.xml").write_text(GOOD)
    return tmp_path


def run_ci(folder: Path) -> tuple[int, list[str]]:
    """Run the CI script as CI does and return its exit code and the lines that it printed."""
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CI": ""}
    done = subprocess.run(
        ["bash", str(folder / ".ci" / "run")],
        cwd=folder.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_ci_prints_sum_of_both_runs(ci: Path) -> None:
    code, lines = run_ci(ci)
    assert (code, lines[-1]) == (0, "4 passed, 0 failed, 2 skipped")
    assert [line for line in lines if line.startswith("made")] == [
        f"made {target} with CI=true" for target in ("lint", "types", "test", "test-slow")
    ]


def test_ci_prints_the_ten_slowest_tests(ci: Path) -> None:
    case = '<testcase file="tests/test_{0}.py" name="test_it[{0}]" time="{0}.0"/>'
    cases = "".join(case.format(seconds) for seconds in range(12))
    (ci / "test.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    _, lines = run_ci(ci)
    slowest = [line.split() for line in lines if line.endswith("]") and " s  tests/" in line]
    assert [words[0] for words in slowest] == [f"{seconds}.0" for seconds in range(11, 1, -1)]
    assert slowest[0][2] == "tests/test_11.py::test_it[11]"


@pytest.mark.parametrize("step", ["lint", "types", "test", "test-slow"])
def test_ci_continues_after_failed_step_and_fails(ci: Path, step: str) -> None:
    (ci / f"{step}.code").write_text("2")
    code, lines = run_ci(ci)
    assert code == 1
    assert lines[-2:] == [f"FAILED: {step} (2)", "4 passed, 0 failed, 2 skipped"]


def test_ci_counts_failures_and_errors(ci: Path) -> None:
    (ci / "test-slow.xml").write_text(BAD)
    (ci / "test-slow.code").write_text("2")
    code, lines = run_ci(ci)
    assert (code, lines[-1]) == (1, "3 passed, 2 failed, 1 skipped")


@pytest.mark.parametrize("report", [None, "<testsuites><testsuite><testcase/>"])
def test_ci_fails_without_a_complete_report(ci: Path, report: str | None) -> None:
    (ci / "test.xml").unlink()
    if report is not None:
        (ci / "test.xml").write_text(report)
    code, lines = run_ci(ci)
    assert code == 1
    assert lines[-2:] == ["FAILED: a test run left no complete report", "2 passed, 0 failed, 1 skipped"]


def test_ci_fails_when_no_slow_test_ran(ci: Path) -> None:
    (ci / "test-slow.xml").write_text(NONE)
    (ci / "test-slow.code").write_text("5")  # as pytest ends when it ran none
    code, lines = run_ci(ci)
    assert code == 1
    assert lines[-2:] == ["FAILED: test-slow (5)", "2 passed, 0 failed, 1 skipped"]


def test_failed_installation_is_one_line_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [shutil.which("sh") or "sh", str(ROOT / "scripts" / "apt.sh"), "redis-server", "chromium"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "redis-server chromium" in done.stderr


def test_old_python_is_one_line_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "scripts" / "venv.sh"), str(tmp_path / "venv")],
        env={**os.environ, "PYTHON": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_only_requested_services_are_installed(tmp_path: Path) -> None:
    """With nothing on the PATH, Redis is asked for, and the browser only once a test needs one."""
    (tmp_path / "sh").symlink_to(shutil.which("sh") or "/bin/sh")

    def install(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "install_services.py"), *arguments],
            env={"PATH": str(tmp_path), "CI": "true"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        return done.stderr

    assert "redis-server" in install()
    assert "valkey-server" not in install()
    assert "valkey-server" in install("--slow")


def test_size_counts_files_and_statements(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text('"""Text."""\nimport os\n\nif os:\n    x = 1\n    """Of x."""\n')
    (tmp_path / "sub" / "b.py").write_text('def f():\n    """Text."""\n    return "text"\n' + "\n" * 398)
    (tmp_path / "sub" / "c.sql").write_text("SELECT 1\n")
    (tmp_path / "sub" / "d.lua").write_text("\n" * 400)
    (tmp_path / "e.txt").write_text("\n" * 500)
    script = [sys.executable, str(ROOT / "scripts" / "size.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert [line.partition(" goal")[0].split() for line in done.stdout.splitlines()] == [
        ["Python", "files", "2"],
        ["Python", "statements", "5"],
        ["SQL", "and", "Lua", "files", "2"],
        ["files", "over", "400", "lines", "1"],
    ]


def test_every_service_is_installed_for_tests_that_name_it() -> None:
    """Regression: a marker made in a loop was not found, and the tests of PostgreSQL 15 and 18 had no server."""
    assert named() == set(SERVICES)
