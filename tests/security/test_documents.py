"""Attacks on document jobs over HTTP: paths, links, globs, limits, operators' parameters and keys.

The server refuses operators' parameters at once; other refusals come from the worker. All jobs of a table are submitted
first and awaited together.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from milepost.core.job import Job
from tests.documents.embedding_server import Server, serving
from tests.security.live_server import MILEPOST, LiveServer
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.timing, pytest.mark.skipif(sys.platform == "win32", reason="submitted paths need dir_fd")]
SECRET = "the operator's secret text"
TYPES = ("ingestion", "extraction", "reindex", "clustering")
DATABASES = [
    "/tmp/evil.db",
    "{top}/jobs.db",
    "{top}/.ssh/authorized_keys",
    "/dev/full",
    "postgresql://evil/x",
    "sqlite:////etc/x.db",
]
URLS = ["{evil}", "http://169.254.169.254/latest", "http://127.0.0.1:6379", "file:///etc/passwd"]
OPERATORS: list[tuple[str, dict[str, Any]]] = [
    *((job_type, {"database": name}) for job_type in TYPES for name in DATABASES[:3]),
    *(("ingestion", {"database": name}) for name in DATABASES[3:]),
    *((job_type, {"endpoint": url}) for job_type in ("ingestion", "extraction", "reindex") for url in URLS),
    *(("ingestion", {"model": name}) for name in ("http:x", "minilm", "hashing:8")),
    ("reindex", {"model": "http:x", "endpoint": "{evil}"}), ("reindex", {"model_path": "/etc/passwd"}),
    ("ingestion", {"model_path": "/etc/passwd"}), ("extraction", {"model_path": "/etc/shadow"}),
    ("extraction", {"extractor": "llm", "llm_model": "x"}), ("extraction", {"extractor": "llm", "endpoint": "{evil}"}),
]  # fmt: skip
UNKNOWN = [
    {"root": "/"},
    {"embedding_url": "x"},
    {"embedding_key": "x"},
    {"llm_key": "x"},
    {"origin": "local"},
    {"memory_bytes": 1},
]
OUTSIDE = [
    "../secret.txt", "{root}/../secret.txt", "sub/../../secret.txt", "sub/../../../etc/passwd", "{top}/secret.txt", "{top}", "/",
    "/etc/passwd", "/etc/shadow", "/etc/*", "/*/passwd", "/*/*/*/*/*/*/passwd", "/**", "../**", "../*", "*/../../secret.txt",
    "/proc/self/environ", "/proc/self/root/etc/passwd", "/proc/self/cwd", "/proc/self/fd/0", "/dev/zero", "/dev/stdin", "/dev/full",
    "{root}x/b.txt", "{root}/./../secret.txt", ".env", "sub/../.env", ".*", "**/.e*", "{root}/.git/*", ".git", "*/.env", "//etc/passwd", "/./etc/passwd", "a.txt\0", "\0/etc/passwd", "x" * 5000, "d/" * 3000,
]  # fmt: skip
NOTHING = [
    "link.txt", "linked", "linked/b.txt", "linked/*", "link*", "chain.txt", "sub/up/secret.txt", "hard", "fifo", "sub/fifo",
    "dangling", "file:///etc/passwd", "http://{evil}/x", "~/.ssh/id_rsa", "~root/.bashrc", "$HOME/x", "%2e%2e/secret.txt", "..%2fsecret.txt",
    "..\\secret.txt", "C:\\secret.txt", "a.txt/x", "n" * 300, "\u2025/secret.txt", "a.txt\n../secret.txt",
]  # fmt: skip
LIMITS: list[dict[str, Any]] = [
    {"max_bytes": 10**15}, {"max_bytes": 51 * 1024 * 1024}, {"max_bytes": 0}, {"max_bytes": -1}, {"seconds_per_file": 1e300},
    {"seconds_per_file": 601}, {"seconds_per_file": 0}, {"encoding": "/etc/passwd"}, {"key": "k" * 600},
    {"key": "file:///etc/passwd"},
]  # fmt: skip


class Attack(NamedTuple):
    """A server, the operator's worker, the documents folder, and a server that an attacker controls."""

    live: LiveServer
    root: Path
    database: Path
    evil: Server
    key: str

    def fill(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self.fill(part) for name, part in value.items()}
        if not isinstance(value, str):
            return value
        for name, text in (("root", self.root), ("top", self.root.parent), ("evil", self.evil.url)):
            value = value.replace(f"{{{name}}}", str(text))
        return value

    def submit(self, job_type: str, params: dict[str, Any], key: str | None = None) -> httpx.Response:
        body = {"job_type": job_type, "params": self.fill(params)}
        return self.live.call("POST", "/api/jobs", key or self.key, json=body)

    def ended(self, answers: list[httpx.Response]) -> list[Job]:
        assert {answer.status_code for answer in answers} <= {201}, [answer.text for answer in answers]
        return [self.live.manager.wait(answer.json()["job_id"], PATIENCE) for answer in answers]

    def search(self, text: str) -> str:
        return self.live.call("GET", "/api/documents/search", self.key, params={"q": text, "k": 1000}).text


@pytest.fixture(scope="module")
def attack(place: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    """Prepare a documents folder with traps beside a secret, and the operator's keys in the environment."""
    top = tmp_path_factory.mktemp("operator")
    root, database = top / "root", top / "documents.db"
    (root / "sub").mkdir(parents=True)
    (top / "outside").mkdir()
    for path in (top / "secret.txt", top / "outside" / "b.txt"):
        path.write_text(SECRET)
    (root / "a.txt").write_text("A text about lighthouses and towers.")
    (root / "sub" / "c.txt").write_text("A text about lamps and paraffin.")
    (root / ".git").mkdir()
    for path in (root / ".env", root / "sub" / ".env", root / ".git" / "config"):
        path.write_text(SECRET)
    (root / "link.txt").symlink_to(top / "secret.txt")
    (root / "chain.txt").symlink_to(root / "link.txt")
    (root / "linked").symlink_to(top / "outside")
    (root / "sub" / "up").symlink_to("../..")
    (root / "dangling").symlink_to("/nowhere")
    for fifo in (root / "fifo", root / "sub" / "fifo"):
        os.mkfifo(fifo)
    with serving() as evil, serving() as own:
        operator = {
            "MILEPOST_DOCUMENTS": str(database), "MILEPOST_DOCUMENTS_ROOT": str(root), "MILEPOST_DOCUMENTS_MODEL": "hashing:64",
            "MILEPOST_LLM_URL": own.url, "MILEPOST_LLM_KEY": "sk-operator-llm", "MILEPOST_EMBEDDING_KEY": "sk-operator-embedding",
        }  # fmt: skip
        with LiveServer(*place, MILEPOST_AUTH="keys", **operator) as live, working(live) as key:
            yield Attack(live, root, database, evil, key)


@contextmanager
def working(live: LiveServer, **environment: str) -> Iterator[str]:
    """Run a worker until the end, and return a key that may read and write."""
    with (live.folder / "worker").open("wb") as log:
        command = [*MILEPOST, "worker", "-c", "4"]
        worker = subprocess.Popen(command, env=live.environment | environment, stdout=log, stderr=log)
    try:
        key = live.key("jobs:read", "jobs:write")
        deadline = time.monotonic() + PATIENCE
        while live.call("GET", "/api/job-types", key).text.count('"published":true') < len(TYPES):
            assert time.monotonic() < deadline
            assert worker.poll() is None
            time.sleep(0.05)
        yield key
    finally:
        worker.terminate()
        worker.wait(PATIENCE)


def test_parameters_of_the_operator_are_refused_at_once(attack: Attack) -> None:
    """Submitters chose database, model and endpoint, and so got keys and the index, and wrote files."""
    for job_type, params in OPERATORS:
        rest = {"paths": ["a.txt"]} if job_type == "ingestion" else {}
        answer = attack.submit(job_type, {**rest, **params})
        assert answer.status_code == 422, (job_type, params, answer.text)
        assert any(name in answer.text and "over HTTP" in answer.text for name in params), answer.text
        assert "MILEPOST_" in answer.text
    for params in UNKNOWN:
        assert attack.submit("ingestion", {"paths": ["a.txt"], **params}).status_code == 422
    assert not attack.evil.requests
    assert not (attack.root.parent / ".ssh").exists()
    assert not (attack.root.parent / "jobs.db").exists()


def test_no_path_leads_out_of_the_root(attack: Attack) -> None:
    """A tenant's key read any file of the worker by a path, a link or a glob."""
    outside = [attack.submit("ingestion", {"paths": [path], "strict": True}) for path in map(attack.fill, OUTSIDE)]
    nothing = [attack.submit("ingestion", {"paths": [path], "strict": True}) for path in map(attack.fill, NOTHING)]
    refused = [answer for answer in outside + nothing if answer.status_code == 422]
    assert len(refused) <= 2, "only texts that no job may hold are refused by the server"
    for path, job in zip(
        OUTSIDE, attack.ended([answer for answer in outside if answer.status_code != 422]), strict=False
    ):
        assert job.status == "failed", path
        assert "paths:" in (job.error or ""), (path, job.error)
    for path, job in zip(
        NOTHING, attack.ended([answer for answer in nothing if answer.status_code != 422]), strict=False
    ):
        assert job.status == "failed", path
    found = attack.search(SECRET)
    assert "secret" not in found
    assert "root:x" not in found


def test_paths_below_the_root_are_read(attack: Attack) -> None:
    paths = ["a.txt", "./a.txt", "{root}/a.txt", "*.txt", "**/*.txt", ".", "{root}", "sub"]
    jobs = attack.ended([attack.submit("ingestion", {"paths": [path]}) for path in map(attack.fill, paths)])
    assert {job.status.value for job in jobs} == {"completed"}
    assert {job.origin for job in jobs} == {"api"}
    assert "lighthouses" in attack.search("lighthouses")
    assert "paraffin" in attack.search("paraffin")
    assert SECRET not in attack.search(SECRET)


def test_limits_are_only_lowered(attack: Attack) -> None:
    """Submitters chose the limits per file."""
    answers = [attack.submit("ingestion", {"paths": ["sub/c.txt"], **limit}) for limit in LIMITS]
    for limit, job in zip(LIMITS, attack.ended(answers), strict=True):
        assert job.status == "failed", limit
        assert next(iter(limit)) in (job.error or ""), (limit, job.error)
    refused = attack.submit("ingestion", {"paths": ["sub/c.txt"], "chunk_tokens": 10**9})
    assert (refused.status_code, "at most 8192" in refused.text) == (422, True)
    many = attack.submit("ingestion", {"paths": ["a.txt"] * 1500})
    if many.status_code == 201:
        [job] = attack.ended([many])
        assert "1,500 paths" in (job.error or "")


def test_tenant_keys_cannot_submit_document_jobs(attack: Attack) -> None:
    """A tenant's key, which may not search, replaced the index for everyone."""
    tenant = attack.live.key("jobs:read", "jobs:write", "jobs:delete", "admin", labels={"tenant": "a"})
    reader = attack.live.key("jobs:read")
    for key in (tenant, reader):
        for job_type in TYPES:
            params = {"paths": ["a.txt"]} if job_type == "ingestion" else {}
            assert attack.submit(job_type, params, key).status_code == 403
    for what in ("search?q=a", "entities", "neighbours?entity=a", "communities"):
        assert attack.live.call("GET", f"/api/documents/{what}", tenant).status_code == 403
        assert attack.live.call("GET", f"/api/documents/{what}").status_code == 401


def test_owner_key_ingests_its_folder_for_itself(tmp_path: Path) -> None:
    """Keys bound to the owner label submit ingestions of their own folder. Without the label at the worker they cannot."""
    root = tmp_path / "root"
    for tenant in ("a", "b"):
        (root / tenant).mkdir(parents=True)
        (root / tenant / "notes.txt").write_text(f"A text of tenant{tenant} about lighthouses.")
    operator = {
        "MILEPOST_DOCUMENTS": str(tmp_path / "documents.db"), "MILEPOST_DOCUMENTS_ROOT": str(root),
        "MILEPOST_DOCUMENTS_MODEL": "hashing:64", "MILEPOST_DOCUMENTS_OWNER_LABEL": "tenant",
    }  # fmt: skip
    with LiveServer(f"sqlite:///{tmp_path}/jobs.db", "milepost", MILEPOST_AUTH="keys", **operator) as live:
        scopes = ("jobs:read", "jobs:write")
        own = {tenant: live.key(*scopes, labels={"tenant": tenant}) for tenant in ("a", "b", "c")}

        def submit(key: str, *paths: str, job_type: str = "ingestion", **more: Any) -> httpx.Response:
            body = {"job_type": job_type, "params": {"paths": paths, **more} if paths else {}}
            return live.call("POST", "/api/jobs", key, json=body)

        with working(live):
            for tenant in ("a", "b"):
                answer = submit(own[tenant], ".", sync=True)
                assert answer.status_code == 201, answer.text
                job = live.manager.wait(answer.json()["job_id"], PATIENCE)
                assert (job.result or {}).get("ingested") == 1, job.error
                found = live.call("GET", "/api/documents/search", own[tenant], params={"q": "lighthouses"}).json()[
                    "hits"
                ]
                assert [hit["text"] for hit in found] == [f"A text of tenant{tenant} about lighthouses."]
            assert live.call("POST", f"/api/jobs/{job.job_id}/retry", own["a"]).status_code == 404
            for key, path in ((own["a"], "../b"), (own["a"], str(root / "b")), (own["c"], ".")):
                ended = live.manager.wait(submit(key, path).json()["job_id"], PATIENCE)
                assert (ended.status.value, (ended.error or "").partition(":")[0]) == ("failed", "paths")
            assert {submit(own["a"], job_type=job_type).status_code for job_type in TYPES[1:]} == {403}
            assert submit(live.key(*scopes, labels={"tenant": "a", "user": "u"}), ".").status_code == 403
            assert submit(live.key(*scopes, labels={"user": "u"}), ".").status_code == 403
    without = operator | {"MILEPOST_DOCUMENTS_OWNER_LABEL": ""}
    with (
        LiveServer(f"sqlite:///{tmp_path}/other.db", "milepost", MILEPOST_AUTH="keys", **operator) as live,
        working(live, **without),
    ):
        assert submit(live.key(*scopes, labels={"tenant": "a"}), ".").status_code == 403


def test_retried_local_job_keeps_its_origin_and_parameters(attack: Attack) -> None:
    """A local job has parameters that requests may not set. A retry over HTTP must neither lose them nor pass them to a
    request.
    """
    local = attack.live.manager.enqueue("clustering", {"database": str(attack.root / "nothing.db"), "of": "chunks"})
    assert attack.live.manager.wait(local.job_id, PATIENCE).status == "failed"
    assert attack.live.call("POST", f"/api/jobs/{local.job_id}/retry", attack.key).status_code == 200
    again = attack.live.manager.wait(local.job_id, PATIENCE)
    assert (again.origin, again.status.value) == ("local", "failed")
    assert "no documents" in (again.error or "")
    forged = attack.live.manager.enqueue("clustering", {"database": "/tmp/x.db"}, origin="api")
    assert "database" in (attack.live.manager.wait(forged.job_id, PATIENCE).error or "")
    (attack.root / "nothing.db").unlink(missing_ok=True)


def test_endpoint_key_is_sent_only_to_the_configured_server(attack: Attack) -> None:
    """The operator's keys were sent to the endpoint that a job named."""
    jobs = attack.ended([attack.submit("extraction", {"extractor": "llm", "embed": False})])
    assert jobs[0].origin == "api"
    assert not attack.evil.requests


def test_folder_swapped_for_a_link_repeatedly_leaks_nothing(attack: Attack) -> None:
    """Between the check of a path and the read of its file, a folder was replaced by a link to the outside."""
    race, kept = attack.root / "race", attack.root.parent / "kept"
    race.mkdir()
    (race / "b.txt").write_text("A harmless text.")
    answers = [attack.submit("ingestion", {"paths": ["race/b.txt", "race"], "key": f"race-{n}"}) for n in range(10)]
    waiting = [answer.json()["job_id"] for answer in answers]
    deadline = time.monotonic() + PATIENCE
    while not all(attack.live.manager.get_job(job_id).is_terminal for job_id in waiting):  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        for _ in range(50):
            race.rename(kept)
            race.symlink_to(attack.root.parent / "outside")
            race.unlink()
            kept.rename(race)
    assert SECRET not in attack.search(SECRET)


def test_created_files_are_private_to_the_operator(attack: Attack) -> None:
    """Every local user could read the stores."""
    attack.ended([attack.submit("ingestion", {"paths": ["a.txt"], "key": "private"})])
    made = [path for path in attack.root.parent.iterdir() if path.name.startswith("documents.db")]
    if attack.live.store_url.startswith("sqlite"):
        made += list(Path(attack.live.store_url.removeprefix("sqlite:///")).parent.iterdir())
    assert made
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}


def test_local_command_needs_no_root(attack: Attack, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.txt").write_text("A paper of my own.")
    environment = {
        **os.environ,
        "MILEPOST_URL": f"sqlite:///{tmp_path / 'jobs.db'}",
        "MILEPOST_DOCUMENTS": str(tmp_path / "d.db"),
    }
    command = [*MILEPOST, "run", "ingestion", "./papers", "model=hashing:64"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
