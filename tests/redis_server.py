"""A private Redis for tests: start, kill, freeze and restart it. It is ready when its log says so."""

from __future__ import annotations

import collections
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from tests.services import START_SECONDS, STOP_SECONDS, free_port, need

if TYPE_CHECKING:
    import redis

READY = "Ready to accept connections"


PORT_TAKEN = "Address already in use"


class ServerError(Exception):
    """A server did not start or ended by itself; the message ends with its last log lines."""


class RedisServer:
    """A private redis-server (or valkey-server) on 127.0.0.1, with a unix socket beside the port.

    It has its own folder, which it keeps over `restart()` and `kill()`, and loses with `close()`.
    Port and URLs stay the same over restarts.

    - `appendonly`: None keeps nothing over a restart; "always" and "everysec" are Redis's fsync policies.
    - `password`: of the default user. `users`: ACL rules by name, such as `{"app": "on >secret ~mp:* +@all"}`.
    - `tls`: the port speaks TLS only, with a certificate of a fresh authority; "mutual" asks clients for theirs.
    - `options`: any other line of redis.conf, by name.
    """

    def __init__(
        self,
        *,
        service: Literal["redis-server", "valkey-server"] = "redis-server",
        appendonly: Literal["always", "everysec"] | None = None,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: bool | Literal["mutual"] = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.program = need(service)
        self.port = free_port()
        self.password = password
        self.tls = tls
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))  # short: a socket's path has 107 bytes
        self._appendonly = appendonly
        self._users = dict(users or {})
        self._options = dict(options or {})
        self._process: subprocess.Popen[str] | None = None
        self._log: collections.deque[str] = collections.deque(maxlen=400)
        self._kept_port = False
        self._up: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: ready; False: its output has ended
        self._reader: threading.Thread | None = None
        if tls:
            self._write_certificates()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- addresses

    @property
    def url(self) -> str:
        """The URL over TCP, as the default user."""
        return self.url_for(None, self.password)

    @property
    def unix_url(self) -> str:
        """The URL over the unix socket, as the default user; it needs no TLS."""
        return f"unix://{_userinfo(None, self.password)}{self.socket_path}?db=0"

    @property
    def socket_path(self) -> Path:
        """The unix socket."""
        return self.directory / "s"

    def url_for(self, user: str | None, password: str | None) -> str:
        """Return the URL over TCP for an ACL user."""
        address = f"{_userinfo(user, password)}127.0.0.1:{self.port}/0"
        if not self.tls:
            return f"redis://{address}"
        query = f"ssl_ca_certs={self.ca_file}"
        if self.tls == "mutual":
            query += f"&ssl_certfile={self.directory / 'client.pem'}&ssl_keyfile={self.directory / 'client.key'}"
        return f"rediss://{address}?{query}"

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that signed the server's, when `tls` is on."""
        return self.directory / "ca.pem"

    def client(self, **options: Any) -> redis.Redis:
        """Return a redis-py client over the unix socket, to look at what is stored; close it, or use `with`."""
        import redis  # here: only tests with Redis pay for it

        options = {"decode_responses": True, "password": self.password} | options
        return redis.Redis(unix_socket_path=str(self.socket_path), **options)

    # ---- life

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def log(self) -> str:
        """The last lines that the server wrote, over all its starts."""
        return "\n".join(self._log)

    def start(self) -> Self:
        """Start the server and wait until it takes connections, with its append-only file loaded."""
        if self._process is not None:
            raise ServerError("the server is already running")
        for _ in range(5):
            self._spawn()
            if self._is_up():
                self._kept_port = True
                return self
            self._reap()
            if self._kept_port or PORT_TAKEN not in self.log:
                break
            self.port = free_port()  # another took it between our look and the server's
            self._log.clear()
        raise ServerError(f"the server did not start:\n{self.log}")

    def stop(self) -> None:
        """End the server in order, by SIGTERM; with `appendonly` its data are on the disk."""
        self.kill(signal.SIGTERM)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; return when the process has ended, or at once for one that does not end it."""
        process = self._running()
        process.send_signal(number)
        if number in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}:
            self._reap()

    def pause(self) -> None:
        """Freeze the server: connections stay open and no reply comes."""
        self.kill(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a frozen server."""
        self.kill(signal.SIGCONT)

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server with a signal and start it on the same port and folder."""
        self.kill(number)
        self.start()

    def close(self) -> None:
        """End the server if it runs and remove its folder."""
        if self._process is not None:
            self.kill(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- inside

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process

    def _spawn(self) -> None:
        config = self.directory / "redis.conf"
        config.write_text("".join(f"{line}\n" for line in self._config()), encoding="utf-8")
        self._up = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [*_with_parent_death_signal(), self.program, str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            text=True,
            start_new_session=True,  # Ctrl-C is for pytest, which then ends it in order
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout, self._up), daemon=True)
        self._reader.start()

    def _read(self, output: IO[str], up: queue.SimpleQueue[bool]) -> None:
        for line in output:
            self._log.append(line.rstrip())
            if READY in line:
                up.put(True)
        up.put(False)

    def _is_up(self) -> bool:
        try:
            return self._up.get(timeout=START_SECONDS)
        except queue.Empty:
            return False

    def _reap(self) -> None:
        process = self._running()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
        if self._reader is not None:
            self._reader.join(STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
        self._process = self._reader = None

    def _config(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": "0" if self.tls else str(self.port),
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "daemonize": "no",
            "save": '""',
            "appendonly": "no" if self._appendonly is None else "yes",
            "loglevel": "notice",
        }
        if self._appendonly is not None:
            settings["appendfsync"] = self._appendonly
        if self.password is not None:
            settings["requirepass"] = self.password
        if self.tls:
            settings |= {
                "tls-port": str(self.port),
                "tls-cert-file": str(self.directory / "server.pem"),
                "tls-key-file": str(self.directory / "server.key"),
                "tls-ca-cert-file": str(self.ca_file),
                "tls-auth-clients": "yes" if self.tls == "mutual" else "no",
            }
        lines = [f"{name} {value}" for name, value in (settings | self._options).items()]
        return lines + [f"user {name} {rules}" for name, rules in self._users.items()]

    def _write_certificates(self) -> None:
        import trustme  # here: only tests with TLS pay for it

        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        for name, identity in (("server", "127.0.0.1"), ("client", "client@example.org")):
            certificate = authority.issue_cert(identity)
            certificate.private_key_pem.write_to_path(self.directory / f"{name}.key")
            for part in certificate.cert_chain_pems:
                part.write_to_path(self.directory / f"{name}.pem", append=True)


def _userinfo(user: str | None, password: str | None) -> str:
    if user is None and password is None:
        return ""
    return f"{quote(user or '', safe='')}:{quote(password or '', safe='')}@"


def _with_parent_death_signal() -> list[str]:
    """Return the prefix that ends a server when pytest is killed; it is bound to the thread that starts it."""
    setpriv = shutil.which("setpriv")
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return []
    return [setpriv, "--pdeathsig", "KILL", "--"]
