"""Start several Redis servers on loopback: a Cluster of three masters, or a master with a replica and a Sentinel."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.redis_server import RedisServer
from tests.services import free_port
from tests.waiting import PATIENCE, until

SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))
WATCHED = "jobs"


@contextmanager
def three_masters() -> Iterator[list[RedisServer]]:
    """Three masters that know each other, each with a third of the slots."""
    ports = [str(free_port()) for _ in SLOTS]
    with ExitStack() as ends:
        servers = [
            ends.enter_context(RedisServer(options={"cluster-enabled": "yes", "cluster-port": port})) for port in ports
        ]
        for epoch, (server, (low, high)) in enumerate(zip(servers, SLOTS, strict=True), 1):
            with server.client() as client:
                # With equal epochs a master takes a higher one when it notices, and the slots it has given away with it.
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
        with servers[0].client() as client:
            for server, port in zip(servers[1:], ports[1:], strict=True):
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, port)
        until(lambda: all(_knows_all(server) for server in servers))
        yield servers


def url_of(servers: list[RedisServer]) -> str:
    """Return the URL of a cluster."""
    return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in servers)}"


def _knows_all(server: RedisServer) -> bool:
    with server.client() as client:
        info = str(client.execute_command("CLUSTER", "INFO"))
        return (
            "cluster_state:ok" in info and "cluster_slots_assigned:16384" in info
        ) or "'cluster_state': 'ok'" in info


# --- Sentinel ---


@dataclass(frozen=True)
class Pair:
    """A master and its replica, and the port of the Sentinel that watches them."""

    master: RedisServer
    replica: RedisServer
    port: int

    @property
    def url(self) -> str:
        """The URL of whichever is master."""
        return f"redis+sentinel://127.0.0.1:{self.port}/{WATCHED}/0"

    def settle(self) -> None:
        """Wait until the replica has all that was written, and the Sentinel knows of it."""
        with self.master.client() as client:
            assert client.wait(1, 30_000) == 1
        until(lambda: b"num-slaves\r\n$1\r\n1" in _asked(self.port))


@contextmanager
def watched_pair(folder: Path) -> Iterator[Pair]:
    """Yield a master, a replica, and a Sentinel that promotes the replica when the master is gone."""
    with ExitStack() as ends:
        master = ends.enter_context(RedisServer())
        following = {"replicaof": f"127.0.0.1 {master.port}", "repl-diskless-sync-delay": "0"}
        replica = ends.enter_context(RedisServer(options=following))
        with replica.client() as client:
            until(lambda: client.info("replication")["master_link_status"] == "up")
        port, config = free_port(), folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {WATCHED} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {WATCHED} 500\nsentinel failover-timeout {WATCHED} 3000\n"
        )
        command = [master.program, str(config), "--sentinel"]
        sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends.callback(sentinel.wait, PATIENCE)
        ends.callback(sentinel.kill)
        until(lambda: _asked(port))
        yield Pair(master, replica, port)


def _asked(port: int) -> bytes:
    """Return what the Sentinel says of its master; nothing while it does not listen yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(f"SENTINEL MASTER {WATCHED}\r\n".encode())
            return connection.recv(65536)
    except ConnectionError:
        return b""
