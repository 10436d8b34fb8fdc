"""When `milepost serve` requires keys: on loopback addresses, behind a proxy, and for the demo."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from milepost import AsyncJobs
from milepost.core.errors import InvalidInputError
from milepost.stores.sync_bridge import run_sync
from milepost.web import attach, auth, create_app, serve
from milepost.web.security.local_access import LocalAccess, token_file
from milepost.web.server import announce
from tests.security.live_server import LiveServer, cli
from tests.security.test_attacks import HOSTS

FORWARDED = [
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Host": "jobs.example.org"},
    {"Forwarded": "for=203.0.113.9"},
    {"Via": "1.1 proxy"},
    {"X-Real-IP": "203.0.113.9"},
]

pytestmark = pytest.mark.timing


@pytest.fixture(scope="module")
def keyed(place: tuple[str, str]) -> LiveServer:
    """Return a `milepost serve` on a store in which all keys are expired or revoked at its start.

    The end of the only key opened the server at its next start.
    """
    server = LiveServer(*place)
    server.key("admin", expires_in=0.0)
    run_sync(server.keys.revoke(server.key("admin").split("_")[1]))
    return server


@pytest.fixture(scope="module")
def running(keyed: LiveServer) -> Iterator[LiveServer]:
    """Return the running server of `keyed`."""
    with keyed as server:
        yield server


@pytest.fixture
def file_store(tmp_path: Path) -> tuple[str, str]:
    """Return a SQLite store, for tests where the kind of store does not matter."""
    return f"sqlite:///{tmp_path / 'jobs.db'}", "milepost"


def test_loopback_server_with_keys_requires_them(running: LiveServer) -> None:
    """Although keys existed, every local account and every visitor through a proxy was an admin."""
    for path in ("/api/jobs", "/api/keys", "/api/doctor", "/metrics"):
        assert running.call("GET", path).status_code == 401
        assert running.call("GET", path, headers=FORWARDED[0]).status_code == 401
    body = {"name": "x", "scopes": ["admin"]}
    assert running.call("POST", "/api/keys", json=body).status_code == 401
    assert "no authentication" not in running.stderr_text
    assert running.call("GET", "/api/jobs", running.key("jobs:read")).status_code == 200


def test_sign_in_link_works_once(running: LiveServer) -> None:
    """Required keys must not lock out the user who started the server: the printed link signs in one browser."""
    with httpx.Client(base_url=running.url, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
        assert browser.get("/api/session").status_code == 401
        assert browser.post("/api/session", json={"key": running.link}).status_code == 204
        assert browser.get("/api/session").json()["scopes"] == ["admin"]
        with httpx.Client(base_url=running.url) as other:
            assert other.post("/api/session", json={"key": running.link}).status_code == 401
            assert other.get("/api/jobs").status_code == 401
        assert browser.delete("/api/session").status_code == 204
        assert browser.get("/api/session").status_code == 401
    assert running.call("GET", "/api/jobs", running.link).status_code == 401, "a link is no key"


def test_command_line_of_the_same_user_finds_the_token_file(file_store: tuple[str, str]) -> None:
    """With required keys the local command line would need one for each command; a private token file replaces it."""
    with LiveServer(*file_store, "--auth", "keys", host="localhost") as server:
        folder = server.folder / "state" / "milepost" / "servers"
        file = folder / f"127.0.0.1_{server.port}.token"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for url in (server.url, f"http://localhost:{server.port}"):
            done = server.cli("--url", url, "keys", "--json")
            assert done.returncode == 0, done.stderr
        stranger = server.cli("--url", server.url, "ls", XDG_STATE_HOME=str(server.folder / "other"))
        assert "MILEPOST_KEY" in stranger.stderr
        wrong = server.cli("--url", server.url, "ls", MILEPOST_KEY="mp_0_0")
        assert wrong.returncode == 1, "a key that is given comes first"
        token = file.read_text()
        assert server.call("GET", "/api/keys", token).status_code == 200
        server.end()
        assert list(folder.iterdir()) == [], "a token that outlives its server would be an irrevocable key"
    with LiveServer(*file_store, "--auth", "keys", MILEPOST_AUTH="none") as other:
        assert other.call("GET", "/api/keys", token).status_code == 401
        assert other.call("GET", "/api/jobs").status_code == 401, "the option comes before the variable"


@pytest.mark.parametrize("shared", ["milepost", "milepost/servers"])
def test_token_file_needs_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: str) -> None:
    """Under umask 000 the folders above the token were writable by all, and another user could replace one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "new" / "state"))
    before = os.umask(0)
    try:
        local = LocalAccess()
        local.write_token("127.0.0.1", 1)
    finally:
        os.umask(before)
    file = token_file("127.0.0.1", 1)
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in list(file.parents)[:4]]
    assert (modes, file.read_text()) == ([0o700] * 4, local.token)
    file.unlink()
    (tmp_path / "new" / "state" / shared).chmod(0o777)
    local.write_token("127.0.0.1", 1)
    assert not file.exists(), "the token would be in a folder of another user"


def test_sign_in_link_expires() -> None:
    """A link that stays in a terminal or a log must expire."""
    now = 0.0
    local = LocalAccess(clock=lambda: now)
    link = local.new_link()
    now = 601.0
    assert local.sign_in(link) is None
    session = local.sign_in(local.new_link())
    assert session is not None
    assert local.of_session(session) is not None
    now += 12 * 3600.0
    assert local.of_session(session) is None


def test_server_without_keys_refuses_forwarded_requests(place: tuple[str, str]) -> None:
    """Behind a proxy, a server without keys treated every visitor as the user of this machine."""
    with LiveServer(*place, MILEPOST_AUTH="none") as server, httpx.Client(base_url=server.url) as web:
        assert f"\nDashboard: {server.url}/jobs/\n" in server.stderr_text
        assert "no authentication" not in server.stderr_text  # only this machine can reach it
        assert server.call("GET", "/api/jobs").status_code == 200
        for headers in FORWARDED:
            for method, path in (
                ("GET", "/api/jobs"),
                ("GET", "/api/jobs/x"),
                ("POST", "/api/purge"),
                ("GET", "/metrics"),
            ):
                refused = web.request(method, path, headers=headers)
                assert (refused.status_code, "--auth keys" in refused.json()["detail"]) == (403, True), headers
        made = server.call("POST", "/api/keys", json={"name": "x", "scopes": ["admin"]})
        assert (made.status_code, "milepost keys create" in made.json()["detail"]) == (403, True)
        check_foreign_host_names(server)


def application(scheme: auth.Auth, *, mounted: bool = False) -> FastAPI:
    """Return an application with the web interface attached or mounted."""
    inner = FastAPI()
    attach(inner, AsyncJobs("memory://"), auth=scheme)
    outer = FastAPI()
    outer.mount("/a", FastAPI(routes=[Mount("/b", inner)]))
    return outer if mounted else inner


@pytest.mark.parametrize("mounted", [False, True])
def test_serve_refuses_application_without_auth(monkeypatch: pytest.MonkeyPatch, mounted: bool) -> None:
    """`serve(app, auth="keys")` ignored its `auth` and listened on 0.0.0.0 without authentication, also for a mounted
    interface.
    """
    served: list[str] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda server: served.append(server.config.host))
    opened, closed = (application(scheme, mounted=mounted) for scheme in (auth.none(), auth.api_keys()))
    for host in ("0.0.0.0", "127.0.0.1"):
        for app, given in ((opened, "keys"), (opened, auth.api_keys()), (closed, "keys"), (closed, "none")):
            with pytest.raises(InvalidInputError, match="attach"):
                serve(app, host, auth=given)
    with pytest.raises(InvalidInputError, match="without authentication"):
        serve(opened, "0.0.0.0")
    assert served == []
    serve(opened)
    serve(opened, "0.0.0.0", auth="none")
    serve(closed, "0.0.0.0")
    assert served == ["127.0.0.1", "0.0.0.0", "0.0.0.0"]


def test_public_server_without_auth_warns(file_store: tuple[str, str]) -> None:
    with LiveServer(*file_store, "--auth", "none", host="0.0.0.0") as server:
        assert f"\nDashboard: {server.url}/jobs/\n" in server.stderr_text  # 0.0.0.0 is no address of a browser
        assert server.stderr_text.count("no authentication") == 1


@pytest.mark.parametrize(
    ("host", "dashboard", "printed"),
    [("127.0.0.1", "/jobs", "127.0.0.1:49152/jobs/"), ("localhost", "/", "localhost:49152/"), ("::", "a/b", "[::1]:49152/a/b/")],
)  # fmt: skip
def test_printed_address_is_that_of_the_dashboard(
    capsys: pytest.CaptureFixture[str], host: str, dashboard: str, printed: str
) -> None:
    """An application may have its dashboard elsewhere than at /jobs, and port 0 is not the port."""
    app = create_app("memory://", auth=auth.none(), dashboard=dashboard)
    announce(app.state.milepost, "http", host, [(host, 49152)])
    assert capsys.readouterr().err.splitlines()[0] == f"Dashboard: http://{printed}"


def check_foreign_host_names(server: LiveServer) -> None:
    """Check that foreign host names are refused, which a page of another site uses in DNS rebinding."""
    with httpx.Client(base_url=server.url) as web:
        for host in HOSTS:
            assert web.get("/api/jobs", headers={"Host": host}).status_code in (400, 421), host
        for host in ("localhost", f"LOCALHOST:{server.port}", "127.0.0.1", "[::1]:80"):
            assert web.get("/api/jobs", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize(("arguments", "host"), [((), "::"), (("--demo",), "0.0.0.0")])
def test_public_host_without_auth_is_refused(arguments: tuple[str, ...], host: str, tmp_path: Path) -> None:
    """`--demo` on a public address bypassed the check."""
    done = cli(
        "serve", "--host", host, *arguments, MILEPOST_URL=f"sqlite:///{tmp_path}/j.db", XDG_STATE_HOME=str(tmp_path)
    )
    assert done.returncode == 2
    assert "milepost keys create" in done.stderr
    assert "--auth none" in done.stderr


def test_invalid_auth_setting_starts_no_server(tmp_path: Path) -> None:
    """`--insecure` is gone, and a typo in MILEPOST_AUTH must not disable authentication."""
    done = cli("serve", MILEPOST_URL=f"sqlite:///{tmp_path}/j.db", MILEPOST_AUTH="off")
    assert (done.returncode, "MILEPOST_AUTH" in done.stderr) == (2, True)
    assert cli("serve", "--insecure", MILEPOST_URL=f"sqlite:///{tmp_path}/j.db").returncode == 2


def test_token_is_not_sent_to_another_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may lead to another server on the same port. A token is sent only to the address in its file name."""
    from milepost.web.security.local_access import token_for

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    local = LocalAccess()
    local.write_token("127.0.0.1", 8321)
    assert token_for("http://127.0.0.1:8321") == ("http://127.0.0.1:8321", local.token)
    assert token_for("http://localhost:8321") == ("http://127.0.0.1:8321", local.token)
    for url in ("http://127.0.0.1:8322", "http://127.0.0.2:8321", "http://[::1]:8321", "https://127.0.0.1:8321",
                "http://evil.example:8321", "http://127.0.0.1.evil.example:8321", "http://127.0.0.1:99999"):  # fmt: skip
        assert token_for(url)[1] is None, url
    os.chmod(tmp_path / "milepost" / "servers" / "127.0.0.1_8321.token", 0o644)
    assert token_for("http://127.0.0.1:8321")[1] is None
    local.close()
    assert list((tmp_path / "milepost" / "servers").iterdir()) == []
