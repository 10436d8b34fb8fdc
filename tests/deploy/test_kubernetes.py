"""The manifests of `deploy/kubernetes`: they are valid, and a real worker and server answer what they name.

The commands, probes, environment and scaler queries are those of the rendered manifests; nothing is repeated here.
"""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from milepost import Jobs, Settings
from tests.cli.subprocesses import CommandRunner
from tests.services import free_port, need
from tests.waiting import until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OVERLAYS = ["base", "overlays/redis", "overlays/keda"]
KEDA = "keda.sh/v1alpha1"
METRIC = re.compile(r"milepost_\w+")
pytestmark = [pytest.mark.slow, pytest.mark.service("kustomize")]
APP = """
import os
import time
from milepost import Jobs, Run

jobs = Jobs()


@jobs.job("report", max_attempts=2)
def report(run: Run, items: int, log: str, slow: str = "") -> int:
    for item in run.each(range(items), resume=True):
        with open(log, "a") as file:
            file.write(f"{item} ")
        end = time.monotonic() + 1
        while os.path.exists(slow) and time.monotonic() < end:
            time.sleep(0.02)
    return items
"""
"""An item takes a second while the file `slow` exists."""


@functools.cache
def rendered(folder: str) -> str:
    """Return the manifests of an overlay as YAML."""
    command = [need("kustomize"), "build", str(DEPLOY / "kubernetes" / folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def objects(folder: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return the objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in yaml.safe_load_all(rendered(folder)) if one["kind"] == kind}


def container(kind: str, name: str, folder: str = "overlays/keda") -> dict[str, Any]:
    spec = objects(folder, kind)[name]["spec"]
    found: dict[str, Any] = spec.get("jobTargetRef", spec)["template"]["spec"]["containers"][0]
    return found


def moved(args: list[str], port: int) -> list[str]:
    """Return the arguments of a container with a free port of this machine, on 127.0.0.1."""
    at = next(place for place, word in enumerate(args) if word in ("--port", "--metrics-port"))
    args = [*args[: at + 1], str(port), *args[at + 2 :]]
    return ["127.0.0.1" if word == "0.0.0.0" else word for word in args]


@pytest.fixture
def program(tmp_path: Path, redis_url: str, redis_namespace: str) -> Iterator[CommandRunner]:
    """Yield the command line with the environment of the ConfigMap, over the Redis of this test."""
    (tmp_path / "app.py").write_text(APP)
    (config,) = objects("base", "ConfigMap").values()
    environment = {**config["data"], "MILEPOST_URL": redis_url, "MILEPOST_NAMESPACE": redis_namespace}
    with CommandRunner(tmp_path, **environment) as program:
        yield program


@pytest.fixture
def jobs(redis_url: str, redis_namespace: str) -> Iterator[Jobs]:
    jobs = Jobs(redis_url, options=Settings(namespace=redis_namespace))
    yield jobs
    jobs.close()


def is_ok(url: str, **headers: str) -> bool:
    try:
        return httpx.get(url, headers=headers, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def wait_for_probes(spec: dict[str, Any], port: int) -> None:
    """Wait until the probes of a container answer."""
    until(lambda: is_ok(f"http://127.0.0.1:{port}{spec['livenessProbe']['httpGet']['path']}"))
    until(lambda: is_ok(f"http://127.0.0.1:{port}{spec['readinessProbe']['httpGet']['path']}"))


@pytest.mark.parametrize("folder", OVERLAYS)
def test_manifests_are_valid_and_complete(folder: str, tmp_path: Path) -> None:
    every = list(yaml.safe_load_all(rendered(folder)))
    (tmp_path / "core.yaml").write_text(yaml.safe_dump_all([one for one in every if one["apiVersion"] != KEDA]))
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "--quiet", str(tmp_path / "core.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (config,) = objects(folder, "ConfigMap")
    text = rendered(folder)
    assert set(re.findall(r"configMapRef:\s+name: (\S+)", text)) == {config}, "each names the generated ConfigMap"
    assert set(re.findall(r"image: (\S+app\S*)", text)) == {"registry.example/app:1"}


def test_worker_is_killed_only_after_its_grace_period() -> None:
    (config,) = objects("base", "ConfigMap").values()
    for kind, name in (("Deployment", "milepost-worker"), ("ScaledJob", "milepost-reports")):
        spec = objects("overlays/keda", kind)[name]["spec"]
        pod = spec.get("jobTargetRef", spec)["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > float(config["data"]["MILEPOST_GRACE"]) + 5


def test_scale_in_during_ten_minute_job_repeats_at_most_one_item(
    program: CommandRunner, jobs: Jobs, tmp_path: Path
) -> None:
    spec = container("Deployment", "milepost-worker")
    log, slow = tmp_path / "items", tmp_path / "slow"
    log.touch()
    slow.touch()
    job = jobs.enqueue("report", {"items": 600, "log": str(log), "slow": str(slow)})
    for least in (2, 5):
        port = free_port()
        worker = program.start(*moved(spec["args"], port))
        wait_for_probes(spec, port)
        until(lambda least=least: len(log.read_text().split()) > least)
        worker.signal(signal.SIGTERM)
        code, out, errors = worker.finish()
        assert code == 0, out + errors
    slow.unlink()
    scaled = container("ScaledJob", "milepost-reports")
    program.call(*scaled["args"][: scaled["args"].index("--exit-when-idle")], "--exit-when-idle", "0")
    done = jobs.wait(job, timeout="1m")
    seen = [int(item) for item in log.read_text().split()]
    assert (done.status, done.attempt, done.crashes, done.result) == ("completed", 1, 0, 600)
    assert sorted(set(seen)) == list(range(600))
    assert len(seen) <= 602, "each of the two repeated at most one item"


def test_server_has_the_metrics_of_scalers_and_dashboard(program: CommandRunner, jobs: Jobs) -> None:
    jobs.enqueue("report", {"items": 1, "log": "/dev/null"})
    key = program.call("keys", "create", "keda", "--scope", "admin").split()[-1]
    spec, port = container("Deployment", "milepost-server"), free_port()
    program.start(*moved(spec["args"], port))
    wait_for_probes(spec, port)
    trigger = objects("overlays/keda", "ScaledJob")["milepost-reports"]["spec"]["triggers"][0]["metadata"]
    path = httpx.URL(trigger["url"]).path
    assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 401
    text = httpx.get(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"}).text
    assert f"{trigger['valueLocation']} 1.0" in text.splitlines()
    worker_port = free_port()
    program.start(*moved(container("Deployment", "milepost-worker")["args"], worker_port))
    until(lambda: is_ok(f"http://127.0.0.1:{worker_port}/readyz"))
    text += httpx.get(f"http://127.0.0.1:{worker_port}/metrics").text
    known = set(re.findall(r"^# TYPE (milepost_\w+)", text, re.MULTILINE))
    asked = set(METRIC.findall((DEPLOY / "grafana" / "milepost.json").read_text()))
    for one in objects("overlays/keda", "ScaledObject").values():
        asked |= {name for each in one["spec"]["triggers"] for name in METRIC.findall(each["metadata"]["query"])}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked} - known == set()


def test_dashboard_is_json_with_a_query_in_each_panel() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "milepost.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 8
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert METRIC.search(target["expr"]), panel["title"]
            assert all(target["expr"].count(a) == target["expr"].count(b) for a, b in ("()", "{}", "[]"))
