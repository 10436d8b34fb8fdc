"""A TCP proxy that delays responses, splits them into odd pieces, and cuts connections on command."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Self

HELD = 0.15
"""Seconds for which responses are delayed."""
PIECE = 97
"""Bytes sent at once. No message has this length or ends there."""


class SlowProxy:
    """Forwards to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection with the data in transit."""
        with self._lock:
            cut, self._open = self._open, set()
        for one in cut:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()  # the server is not running
                continue
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._carry, args=(near, far, 0.0), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, HELD), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, held: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if held:
                    time.sleep(held)
                for start in range(0, len(data), PIECE):
                    sink.sendall(data[start : start + PIECE])
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
