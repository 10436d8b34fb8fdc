"""A private RabbitMQ node for tests, with its own directory, cookie, ports and port mapper, all on 127.0.0.1.

A packaged RabbitMQ service is not touched, because this node registers with its own `epmd`.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Self

from tests.redis_server import ServerError
from tests.services import START_SECONDS, STOP_SECONDS, free_port, need

READY = "Server startup complete"
PORT_TAKEN = "eaddrinuse"
SLOW_START = START_SECONDS * 3


class RabbitServer:
    """A node that keeps its durable queues over `restart()` and `kill()`, and loses all with `close()`."""

    def __init__(self) -> None:
        self._program = need("rabbitmq-server")
        self.directory = Path(tempfile.mkdtemp(prefix="rabbit-"))
        self._ports: tuple[int, int, int] = (0, 0, 0)
        self._mapper: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._log: deque[str] = deque(maxlen=200)
        self._up: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        for _ in range(5):
            self._ports = (free_port(), free_port(), free_port())
            self._start_mapper()
            try:
                return self.start()
            except ServerError:
                self._end_mapper()
                if PORT_TAKEN not in self.log:
                    raise
                self._log.clear()
        raise ServerError(f"no free port for RabbitMQ:\n{self.log}")

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"amqp://guest:guest@127.0.0.1:{self._ports[0]}//"

    @property
    def log(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(self._log)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    # ---- life

    def start(self) -> Self:
        """Start the node and wait until it takes connections."""
        if self._process is not None:
            raise ServerError("the node is already running")
        self._up = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [self._program],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process, self._up), daemon=True)
        self._reader.start()
        try:
            is_up = self._up.get(timeout=SLOW_START)
        except queue.Empty:
            is_up = False
        if not is_up:
            self.kill()
            raise ServerError(f"RabbitMQ did not start:\n{self.log}")
        return self

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the node and its helpers, and wait for its end; SIGTERM ends it in order."""
        process = self._process
        if process is None:
            raise ServerError("the node is not running")
        self._signal(process.pid, number)
        try:
            process.wait(STOP_SECONDS * 3)
        except subprocess.TimeoutExpired:
            self._signal(process.pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)
        if self._reader is not None:
            self._reader.join(STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
        self._process = self._reader = None

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the node with a signal and start it on the same ports and folder."""
        self.kill(number)
        self.start()

    def close(self) -> None:
        """End the node and its port mapper, and remove the folder."""
        if self._process is not None:
            self.kill()
        self._end_mapper()
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- inside

    def _start_mapper(self) -> None:
        epmd = shutil.which("epmd")
        if epmd is None:
            raise ServerError("epmd, which comes with Erlang, is not on the PATH")
        address = ["-address", "127.0.0.1"] if _has_loopback_6() else []  # given one, it insists on ::1 too
        self._mapper = subprocess.Popen(
            [epmd, "-port", str(self._ports[2]), *address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end_mapper(self) -> None:
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait(STOP_SECONDS)
            self._mapper = None

    def _environment(self) -> dict[str, str]:
        port, internal, mapper = map(str, self._ports)
        plugins = self.directory / "plugins"
        plugins.write_text("[].\n", encoding="utf-8")
        # It need not guard the memory and disk of a whole machine, nor use all its cores.
        (self.directory / "rabbitmq.conf").write_text("disk_free_limit.absolute = 1MB\n", encoding="utf-8")
        ours = {
            "NODENAME": f"tests{port}@localhost",
            "NODE_IP_ADDRESS": "127.0.0.1",
            "NODE_PORT": port,
            "DIST_PORT": internal,
            "MNESIA_BASE": str(self.directory / "data"),
            "LOG_BASE": str(self.directory / "log"),
            "LOGS": "-",
            "CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "CONF_ENV_FILE": str(self.directory / "none"),
            "ENABLED_PLUGINS_FILE": str(plugins),
            "PID_FILE": str(self.directory / "pid"),
            "SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),  # of its cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": mapper,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        } | {f"RABBITMQ_{name}": value for name, value in ours.items()}

    def _read(self, process: subprocess.Popen[str], up: queue.SimpleQueue[bool]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._log.append(line.rstrip())
            if READY in line:
                up.put(True)
        up.put(False)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            if number == signal.SIGKILL:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        except ProcessLookupError:
            pass


def _has_loopback_6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            return True
    except OSError:
        return False
