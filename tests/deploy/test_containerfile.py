"""The steps of `deploy/Containerfile`, run as a script on a bare Debian, and the container of a worker in the image that they make.

Its FROM line is replaced: Debian's packages stand for the image with Python, and a wheel of this clone for the release.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from milepost import Jobs
from tests.deploy.test_kubernetes import APP, DEPLOY, container, moved, wait_for_probes
from tests.services import free_port, need
from tests.waiting import until

EXTRAS = "milepost[redis,web,cli,metrics,schedule]"
PACKAGES = "base-files,coreutils,dash,python3-venv"
MACHINE_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
"""What the tool that builds an image provides for its network."""
SERVED = """
set -eu
mount --bind "$1" "$1"
mount --options remount,bind,ro "$1"
mount --bind "$2" "$1/tmp"
mount --types proc proc "$1/proc"
root=$1
shift 2
exec chroot --userspec="$1" "$root" env --ignore-environment --chdir="$2" "${@:3}"
"""
"""What the manifest asks for: a read-only root with a writable /tmp, and a user without rights."""


@dataclass
class Containerfile:
    """The lines of a Containerfile, as a shell script and as what a container of the image starts with."""

    script: list[str] = field(default_factory=lambda: ["set -eu"])
    environment: list[str] = field(default_factory=list)
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)

    def take(self, word: str, rest: str) -> None:
        """Take an instruction."""
        match word:
            case "RUN":
                self.script.append(rest)
            case "COPY":
                source, target = rest.split()
                self.script += [f"mkdir -p {target}", f"cp /context/{source} {target}"]
            case "ENV":
                self.environment += rest.split()
            case "WORKDIR":
                self.folder = rest
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            case _:
                assert word in ("FROM", "CMD"), word


def read_containerfile() -> Containerfile:
    """Return the Containerfile."""
    image = Containerfile()
    for line in (DEPLOY / "Containerfile").read_text().splitlines():
        word, _, rest = line.partition(" ")
        if not word.startswith("#"):
            image.take(word, rest)
    return image


def build(root: Path, context: Path) -> Containerfile:
    """Run the steps in a Debian with nothing but Python, and return what a container starts with."""
    debian = [need("mmdebstrap"), "--variant=extract", f"--include={PACKAGES}", "--mode=root", "trixie", str(root)]
    called(*debian)
    shutil.copytree(context, root / "context")
    for path in filter(os.path.isfile, MACHINE_FILES):
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
    image = read_containerfile()
    called("chroot", str(root), "sh", "-c", "\n".join(image.script))
    return image


def called(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Image:
    """The root folder of an image, and the folder that its containers have as /tmp."""

    root: Path
    shared: Path
    containerfile: Containerfile

    @contextmanager
    def started(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Start a container in a process namespace of its own, and yield the process that started it."""
        image = self.containerfile
        variables = [*image.environment, *(f"{name}={value}" for name, value in environment.items())]
        words = [str(self.root), str(self.shared), image.user, image.folder, *variables, *image.entrypoint, *arguments]
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", SERVED, "bash", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """Build the image of an application; its 300 MB do not outlive the test."""
    context, root, shared = tmp_path / "context", tmp_path / "root", tmp_path / "shared"
    for folder in (context, root, shared):
        folder.mkdir()
    shared.chmod(0o1777)
    wheel = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(context)]
    subprocess.run(wheel, cwd=DEPLOY.parent, check=True, capture_output=True, timeout=240)
    (wheel_name,) = (path.name for path in context.glob("*.whl"))
    (context / "app.py").write_text(APP)
    assert EXTRAS in (DEPLOY / "Containerfile").read_text()
    (context / "requirements.txt").write_text(f"{EXTRAS} @ file:///context/{wheel_name}\n")
    yield Image(root, shared, build(root, context))
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.service("mmdebstrap")
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mount need root")
def test_worker_of_image_answers_probes_and_drains_as_process_1(image: Image) -> None:
    store = {"MILEPOST_URL": "sqlite:////tmp/jobs.db"}
    log = image.shared / "items"
    with image.started(
        "submit", "report", "items=600", "log=/tmp/items", "slow=/tmp", "--app", "app:jobs", **store
    ) as submit:
        out, _ = submit.communicate(timeout=120)
    assert submit.returncode == 0, out
    spec = container("Deployment", "milepost-worker")
    port = free_port()
    with image.started(*moved(spec["args"], port), **store) as worker:
        wait_for_probes(spec, port)
        until(lambda: log.is_file() and len(log.read_text().split()) > 3)
        (first,) = psutil.Process(worker.pid).children()
        assert (first.uids().real, first.gids().real) == (10001, 10001)
        assert re.findall(r"^NSpid:\t\d+.*\t(\d+)$", Path(f"/proc/{first.pid}/status").read_text(), re.M) == ["1"]
        first.send_signal(signal.SIGTERM)
        out, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, out
    jobs = Jobs(f"sqlite:///{image.shared / 'jobs.db'}")
    (job,) = jobs.list_jobs()
    assert (job.status, job.attempt, job.crashes) == ("pending", 0, 0), "the drain charged no attempt"
    jobs.close()
