"""Every work and survey at a tiny size, by milepost and by the peers that need no environment of their own: kept working,
never timed. A queue peer in its own environment is a slow test, and so are the surveys that start many processes, the
workers of a task queue, and PostgreSQL.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.surveys import SURVEYS
from benchmarks.workloads import CELERY_PEERS, POSTGRES_PEERS, WORKLOADS, Workload

ROOT = Path(__file__).resolve().parents[2]
HERE = "floor,postgres_floor,milepost,milepost_async,milepost_keys,original,tqdm,starlette,fastapi,fastapi_bytes"


def bench(*words: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Run the harness as `make bench` does."""
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def marks(work: Workload) -> list[pytest.MarkDecorator]:
    """Return the marks of the test of a workload."""
    service = {"Redis": "redis-server", "PostgreSQL": "postgresql"}[work.server]
    slow = [pytest.mark.slow] if work.server == "PostgreSQL" or work.peers == CELERY_PEERS else []
    return [pytest.mark.service(service), *slow]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(work)) for name, work in WORKLOADS.items()])
def test_workload_runs(name: str, tmp_path: Path) -> None:
    work = WORKLOADS[name]
    kept = tmp_path / "figures.json"
    only = ",".join(CELERY_PEERS) if work.peers == CELERY_PEERS else HERE
    done = bench(name, "--tiny", "--no-install", "--only", only, "--json", str(kept))
    assert done.returncode == 0, done.stderr
    figures = json.loads(kept.read_text())[name]
    assert set(figures) == set(only.split(",")) & set(work.peers), done.stderr
    assert all(figure > 0 for values in figures.values() for figure in values)


@pytest.mark.timeout(300)
@pytest.mark.service("redis-server")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "footprint" else pytest.mark.slow)
        for name in SURVEYS
        if name != "instructions"
    ],
)
def test_survey_runs(name: str) -> None:
    done = bench(name, "--tiny", timeout=280)
    assert done.returncode == 0, done.stderr
    assert f"{name}  {SURVEYS[name].title}" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "store"),
    [
        pytest.param(name, store, marks=[pytest.mark.service("postgresql")] if store == "PostgreSQL" else [])
        for name, survey in SURVEYS.items()
        for store in survey.stores[1:]
    ],
)
def test_survey_runs_on_chosen_store(name: str, store: str) -> None:
    done = bench(name, "--tiny", "--stores", store, timeout=280)
    assert done.returncode == 0, done.stderr
    assert f"\n  {store} " in done.stdout
    assert "\n  Redis " not in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.service("redis-server")
def test_peer_installs_and_runs_its_workloads(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    done = bench("drain", "submit", "pickup", "--tiny", "--only", "huey,arq", "--json", str(kept), timeout=550)
    assert done.returncode == 0, done.stderr
    assert json.loads(kept.read_text()).keys() == {"drain", "submit", "pickup"}
    assert all(set(figures) == {"huey", "arq"} for figures in json.loads(kept.read_text()).values())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.service("postgresql")
def test_peers_on_postgres_install_and_run(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    only = ",".join(peer for peer in POSTGRES_PEERS if peer != "pg_boss")  # needs npm
    done = bench("postgres_pickup", "--tiny", "--only", only, "--json", str(kept), timeout=550)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(kept.read_text())["postgres_pickup"]) == set(only.split(","))


def test_unknown_workload_is_named_in_error() -> None:
    done = bench("W99")
    assert done.returncode == 2
    assert "no work 'W99'; there are lifecycle" in done.stderr


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("Oracle", "no store 'Oracle'; there are PostgreSQL, Redis"),
        ("memory", "user_waits is not measured on memory; choose from Redis, SQLite, PostgreSQL"),
    ],
)
def test_store_that_survey_lacks_is_named_in_error(store: str, message: str) -> None:
    done = bench("user_waits", "--stores", store)
    assert done.returncode == 2
    assert message in done.stderr
