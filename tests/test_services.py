"""The servers that other tests rely on do what their names say."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests import services
from tests.redis_server import RedisServer, ServerError
from tests.services import free_port
from tests.waiting import until

StartRedis = Callable[..., RedisServer]


def test_session_server_answers_on_port_and_socket(redis_url: str, redis_unix_url: str) -> None:
    for url in (redis_url, redis_unix_url):
        with redis.Redis.from_url(url) as client:
            assert client.ping()


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_starts_with_empty_redis(redis_server: RedisServer, redis_namespace: str, turn: int) -> None:
    with redis_server.client() as client:
        assert client.keys("*:x") == []  # a thread of an earlier test may still write keys of its own
        client.set(f"{{{redis_namespace}}}:x", turn)


@pytest.mark.parametrize(("appendonly", "kept"), [("always", "1"), (None, None)])
def test_restart_after_kill_keeps_port_and_data(
    start_redis: StartRedis, appendonly: str | None, kept: str | None
) -> None:
    server = start_redis(appendonly=appendonly)
    with server.client() as client:
        client.set("x", 1)
    port, pid = server.port, server.pid

    server.restart(signal.SIGKILL)

    assert (server.port, server.pid != pid) == (port, True)
    with server.client() as client:
        assert client.get("x") == kept


def test_paused_server_answers_after_resume(start_redis: StartRedis) -> None:
    server = start_redis()
    server.pause()
    with server.client(socket_timeout=0.1, retry=None) as client, pytest.raises(redis.TimeoutError):
        client.ping()
    server.resume()
    with server.client() as client:
        assert client.ping()


def test_password_and_acl_users(start_redis: StartRedis) -> None:
    server = start_redis(password="p@ss:/word", users={"app": "on >se/cret ~{mp}:* +@all"})
    with redis.Redis.from_url(server.url) as client, redis.Redis.from_url(server.unix_url) as local:
        assert client.ping()
        assert local.ping()
    with redis.Redis.from_url(server.url_for("app", "se/cret")) as client:
        assert client.set("{mp}:x", 1)
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("other", 1)
    with (
        redis.Redis.from_url(f"redis://127.0.0.1:{server.port}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.parametrize("tls", [True, "mutual"])
def test_tls_is_verified(start_redis: StartRedis, tls: bool | str) -> None:
    server = start_redis(tls=tls)
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.slow
@pytest.mark.service("valkey-server")
def test_valkey_replaces_redis(start_redis: StartRedis) -> None:
    server = start_redis(service="valkey-server", appendonly="always")
    with server.client() as client:
        assert client.info("server")["server_name"] == "valkey"
        client.set("x", 1)
    server.restart(signal.SIGKILL)
    with server.client() as client:
        assert client.get("x") == "1"


def test_close_removes_process_and_folder() -> None:
    server = RedisServer().start()
    pid, folder = server.pid, server.directory
    server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not folder.exists()


def test_failed_start_reports_reason() -> None:
    server = RedisServer(options={"no-such-setting": "1"})
    with pytest.raises(ServerError, match="no-such-setting"):
        server.start()
    server.close()


def test_taken_port_is_changed_at_first_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer() as other:
        monkeypatch.setattr(services, "free_port", lambda: other.port)
        server = RedisServer()
        monkeypatch.setattr(services, "free_port", free_port)
        with server:
            assert server.port != other.port


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_missing_service_fails_in_ci_and_skips_locally(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(outcome, match="redis-server is not installed"):
        RedisServer()


def fake_program(folder: Path, name: str, prints: str) -> Path:
    """Put a program into `bin` of a folder that prints its version and does nothing else."""
    path = folder / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("prints", "lack"),
    [
        ("Redis server v=6.2.1 sha=0:0", "is 6.2.1, older than 7.0"),
        ("Redis server v=7.0.0 sha=0:0", None),
        ("Redis server", "is of an unknown version, older than 7.0"),
    ],
)
def test_service_of_an_older_version_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prints: str, lack: str | None
) -> None:
    """A redis-server that is too old failed tests one by one instead of being named once."""
    path = fake_program(tmp_path, "redis-server", prints)
    monkeypatch.setenv("CI", "")
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    if lack is None:
        assert services.need("redis-server") == str(path)
    else:
        monkeypatch.setenv("PATH", f"{path.parent}:{tmp_path}")
        with pytest.raises(pytest.skip.Exception, match=lack):
            services.need("redis-server")


def test_postgresql_without_pgvector_is_not_used(tmp_path: Path) -> None:
    """A PostgreSQL on the PATH that had no pgvector counted as present, and 34 tests failed."""
    path = fake_program(tmp_path, "postgres", "postgres (PostgreSQL) 99.1 (Some Linux)")
    assert services.postgresql_lacks(str(path)) == "is 99.1 without the extension pgvector"
    extension = tmp_path / "share" / "extension" / "vector.control"
    extension.parent.mkdir(parents=True)
    extension.touch()
    assert services.postgresql_lacks(str(path)) is None


def test_postgresql_of_an_older_version_is_not_used(tmp_path: Path) -> None:
    path = fake_program(tmp_path, "postgres", "postgres (PostgreSQL) 14.9")
    assert services.postgresql_lacks(str(path)) == "is 14.9, older than 15"


@pytest.mark.service("postgresql")
def test_postgresql_ends_with_the_process_that_started_it() -> None:
    program = """
import time
from tests.postgres_server import PostgresServer
with PostgresServer() as server:
    print(server.port, server.folder, flush=True)
    time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        port, folder = starter.stdout.readline().split()
        with socket.create_connection(("127.0.0.1", int(port))):
            starter.kill()
    until(lambda: not Path(folder, "data", "postmaster.pid").exists())

    def is_refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(port))).close()
        except ConnectionRefusedError:
            return True
        return False

    until(is_refused)  # it removes its file a moment before it ends
    shutil.rmtree(folder)


def test_tests_never_use_default_stores() -> None:
    assert "REDIS_URL" not in os.environ
    assert "MILEPOST_URL" not in os.environ
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        assert Path(os.environ[name]).parent.name.startswith("milepost-tests-")
