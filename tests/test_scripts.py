"""The scripts behind `make` and CI: they count what ran, fail when something failed, and say what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

GOOD = "<testsuites><testsuite><testcase/><testcase/><testcase><skipped/></testcase></testsuite></testsuites>"
BAD = (
    "<testsuites><testsuite><testcase/><testcase><failure/></testcase>"
    "<testcase><error/></testcase></testsuite></testsuites>"
)
NONE = "<testsuites><testsuite/></testsuites>"


@pytest.fixture
def ci(tmp_path: Path) -> Path:
    """A folder with the CI script and, first on its PATH, a `make` that writes `TARGET.xml` as its report."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "tally.py", tmp_path / "scripts")
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


def test_ci_closes_on_the_sum_of_both_runs(ci: Path) -> None:
    code, lines = run_ci(ci)
    assert (code, lines[-1]) == (0, "4 passed, 0 failed, 2 skipped")
    assert [line for line in lines if line.startswith("made")] == [
        f"made {target} with CI=true" for target in ("lint", "types", "test", "test-slow")
    ]


@pytest.mark.parametrize("step", ["lint", "types", "test", "test-slow"])
def test_ci_goes_on_after_a_failed_step_and_fails(ci: Path, step: str) -> None:
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


def test_ci_takes_no_slow_tests_for_what_it_is(ci: Path) -> None:
    (ci / "test-slow.xml").write_text(NONE)
    code, lines = run_ci(ci)
    assert (code, lines[-1]) == (0, "2 passed, 0 failed, 1 skipped")


@pytest.mark.parametrize(
    ("test", "pytest_code", "code"),
    [
        ("def test_x(): ...", 5, 0),
        ("@pytest.mark." + "slow\ndef test_x(): ...", 5, 5),  # marked, and yet none was run
        ("@pytest.mark." + "slow\ndef test_x(): ...", 0, 0),
        ("def test_x(): ...", 1, 1),
    ],
)
def test_no_slow_tests_is_a_failure_only_where_there_are_some(
    tmp_path: Path, test: str, pytest_code: int, code: int
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(test)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexit {pytest_code}\n")
    python.chmod(0o755)
    done = subprocess.run(["sh", str(ROOT / "scripts" / "test_slow.sh"), str(python)], cwd=tmp_path, check=False)
    assert done.returncode == code


def test_what_cannot_be_installed_is_said_in_one_line(tmp_path: Path) -> None:
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


def test_a_python_that_is_too_old_is_said_in_one_line(tmp_path: Path) -> None:
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


def test_only_services_that_tests_name_are_installed(tmp_path: Path) -> None:
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
