"""A private PgBouncer in transaction mode for tests, in front of a PostgreSQL server."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.postgres_server import SUPERVISED, USER, PostgresServer, owner_of
from tests.services import START_SECONDS, free_port, need

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {pool_size}
max_prepared_statements = {prepared}
"""


class PgBouncer:
    """A context manager. `pool_size` connections to the server are shared by all clients, a transaction at a time.

    `prepared` is how many prepared statements it follows from one connection to the next; 0 turns this off.
    """

    def __init__(self, server: PostgresServer, *, pool_size: int = 3, prepared: int = 200) -> None:
        self._program = need("pgbouncer")
        self._folder = tempfile.TemporaryDirectory(prefix="pgbouncer-")
        self.port = free_port()
        settings = SETTINGS.format(
            server=server.port, port=self.port, folder=self._folder.name, pool_size=pool_size, prepared=prepared
        )
        Path(self._folder.name, "settings").write_text(settings, encoding="utf-8")
        Path(self._folder.name, "users").write_text(f'"{USER}" ""\n', encoding="utf-8")

    def __enter__(self) -> PgBouncer:
        folder = Path(self._folder.name)
        command = ["sh", "-c", SUPERVISED, "sh", str(folder / "log"), self._program, str(folder / "settings")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, cwd=folder, start_new_session=True, **owner_of(folder)
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"PgBouncer is not ready: {(folder / 'log').read_text()}") from None
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Return the URL of the server's database, through PgBouncer."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{USER}"
