"""The child process that reads one file after another for its parent.

Owns the child's side of the pipe: requests come on standard input, a line of JSON
each; replies go to standard output as frames, four bytes of length and then JSON.
No pickle crosses the pipe, since what the child holds came out of a stranger's file.
Dies with its parent: by the parent-death signal on Linux, by the closed pipe elsewhere.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import struct
import sys
import threading
from dataclasses import asdict
from typing import Any, BinaryIO, Final

from milepost.documents.errors import BadDocument
from milepost.documents.loaders import load

FRAME_CHARACTERS: Final = 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1


def main(parent: int, memory_bytes: int) -> None:
    """Serve requests until the parent closes the pipe or dies. `memory_bytes` 0 sets no limit."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who then closes the pipe
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a parser prints must not reach the pipe
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    _limit_memory(memory_bytes)
    while True:
        _serve(requests.get(), replies)


def _serve(request: dict[str, Any], replies: BinaryIO) -> None:
    pieces = load(request["path"], encoding=request["encoding"], max_bytes=request["max_bytes"])
    try:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as stop:
                _send(replies, {"report": asdict(stop.value)})
                return
            for start in range(0, max(len(piece.text), 1), FRAME_CHARACTERS):
                text = piece.text[start : start + FRAME_CHARACTERS]
                _send(replies, {"piece": [text, piece.done, piece.total, piece.page]})
    except BadDocument as bad:
        _send(replies, {"error": [bad.code, bad.message]})
    except MemoryError:
        pieces.close()
        _send(replies, {"error": ["out_of_memory", "reading it took more memory than is allowed"], "last": True})
        os._exit(1)  # a heap that was full is not one to go on with
    except Exception as error:  # noqa: BLE001 - parsers raise anything; the parent gets it as a code
        _send(replies, {"error": ["load_failed", f"{type(error).__name__}: {error}"[:500]]})


def _send(replies: BinaryIO, reply: dict[str, Any]) -> None:
    body = json.dumps(reply).encode("ascii")
    replies.write(struct.pack(">I", len(body)) + body)
    replies.flush()


def _receive(stream: BinaryIO, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass requests on; the end of the pipe ends the process, whatever the main thread is caught in."""
    for line in iter(stream.readline, b""):
        requests.put(json.loads(line))
    os._exit(0)


def _die_with(parent: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(0)


def _limit_memory(memory_bytes: int) -> None:
    if not memory_bytes or sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
