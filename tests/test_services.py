"""The servers that other tests rely on do what their names say."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests import services
from tests.services import RedisServer, ServerError, free_port

StartRedis = Callable[..., RedisServer]


def test_the_session_server_answers_on_port_and_socket(redis_url: str, redis_unix_url: str) -> None:
    for url in (redis_url, redis_unix_url):
        with redis.Redis.from_url(url) as client:
            assert client.ping()


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_it_empty(redis_server: RedisServer, redis_namespace: str, turn: int) -> None:
    with redis_server.client() as client:
        assert client.dbsize() == 0
        client.set(f"{{{redis_namespace}}}:x", turn)


@pytest.mark.parametrize(("appendonly", "kept"), [("always", "1"), (None, None)])
def test_sigkill_and_restart_keep_port_and_what_was_appended(
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


def test_a_frozen_server_answers_when_it_goes_on(start_redis: StartRedis) -> None:
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
def test_valkey_in_its_place(start_redis: StartRedis) -> None:
    server = start_redis(service="valkey-server", appendonly="always")
    with server.client() as client:
        assert client.info("server")["server_name"] == "valkey"
        client.set("x", 1)
    server.restart(signal.SIGKILL)
    with server.client() as client:
        assert client.get("x") == "1"


def test_close_leaves_no_process_and_no_folder() -> None:
    server = RedisServer().start()
    pid, folder = server.pid, server.directory
    server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not folder.exists()


def test_a_server_that_cannot_start_says_why() -> None:
    server = RedisServer(options={"no-such-setting": "1"})
    with pytest.raises(ServerError, match="no-such-setting"):
        server.start()
    server.close()


def test_a_taken_port_is_changed_at_the_first_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer() as other:
        monkeypatch.setattr(services, "free_port", lambda: other.port)
        server = RedisServer()
        monkeypatch.setattr(services, "free_port", free_port)
        with server:
            assert server.port != other.port


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_an_absent_service_fails_in_ci_and_skips_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(outcome, match="redis-server is not installed"):
        RedisServer()


def test_tests_never_see_the_users_own_stores() -> None:
    assert "REDIS_URL" not in os.environ
    assert "MILEPOST_URL" not in os.environ
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        assert Path(os.environ[name]).parent.name.startswith("milepost-tests-")
