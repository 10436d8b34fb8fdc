"""A package outside of milepost adds a store, a job type, a command and a route; real processes use them."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.cli.subprocesses import CommandRunner
from tests.docs.page_runner import blocks, run
from tests.services import free_port

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tests" / "plugin_package"
PROGRAM_OF_ITS_OWN = "milepost_ocr.py"
"""A loader on the page that is not part of the package."""
PAGE = blocks((ROOT / "docs" / "how-to" / "plugins.md").read_text())
PATIENCE = 60.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=PACKAGE, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """Return a folder for the path of Python in which the package is installed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.fixture
def milepost(installed: Path, tmp_path: Path) -> CommandRunner:
    return CommandRunner(tmp_path, PYTHONPATH=str(installed), MILEPOST_URL="folder://store")


def test_page_shows_the_package() -> None:
    shown = {title: code for _, code, title in PAGE if title not in (None, PROGRAM_OF_ITS_OWN)}
    assert shown == {name: (PACKAGE / name).read_text() for name in shown}
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.stat().st_size}
    assert files | {"pyproject.toml"} == set(shown)


@pytest.mark.timing
def test_session_of_page_runs(installed: Path) -> None:
    run([("console", code, None) for language, code, _ in PAGE if language == "text"], installed, "", "greetings")


def test_broken_job_type_is_one_line(milepost: CommandRunner, installed: Path) -> None:
    (installed / "milepost_greetings" / "jobs.py").write_text("import no_such_package\n")
    assert milepost.error_line("run", "greet", "Ada", code=1) == (
        "milepost: the job type 'greet' of milepost-greetings 1.0 cannot be loaded: ModuleNotFoundError: "
        "No module named 'no_such_package'; run: pip install --upgrade milepost-greetings, or uninstall it\n"
    )
    assert milepost.call("greetings") == ""


def test_object_of_wrong_kind_is_one_line(milepost: CommandRunner, installed: Path) -> None:
    (installed / "milepost_greetings" / "commands.py").write_text("def greetings(): ...\n")
    (installed / "milepost_greetings" / "jobs.py").write_text("greet = 7\n")
    assert "of milepost-greetings 1.0 is not a click.Command" in milepost.error_line("greetings", code=1)
    assert "of milepost-greetings 1.0 cannot be loaded" in milepost.error_line("run", "greet", "Ada", code=1)
    assert "greetings" in milepost.call("--help")


@pytest.mark.timing
def test_server_continues_without_broken_routes(milepost: CommandRunner, installed: Path) -> None:
    (installed / "milepost_greetings" / "routes.py").write_text("1 / 0\n")
    port = free_port()
    with milepost:
        server = milepost.start("serve", "--port", str(port))
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/api/jobs").status_code == 200
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                assert server.process.poll() is None
                time.sleep(0.1)
        assert httpx.get(f"http://127.0.0.1:{port}/api/greetings").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{port}/api/documents/entities").status_code == 200
        server.process.terminate()
        _, _, errors = server.finish()
    assert "the API routes 'greetings' of milepost-greetings 1.0 cannot be loaded: ZeroDivisionError" in errors
