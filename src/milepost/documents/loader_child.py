"""The child process that loads one file after another for its parent.

Requests come on standard input as lines of JSON; replies go to standard output as frames of four length bytes and JSON.
Nothing is pickled, because the content comes from untrusted files. The child dies with its parent: by the parent-death
signal on Linux, elsewhere by the closed pipe.
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

from milepost.documents.errors import BadDocumentError
from milepost.documents.loaders import load

FRAME_CHARACTERS: Final = 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1
_CPU_SPARE_SECONDS: Final = 10.0
_MAX_CPU_SECONDS: Final = 10 * 365 * 86400


def main(parent: int, memory_bytes: int) -> None:
    """Serve requests until the parent closes the pipe or dies. `memory_bytes` 0 sets no limit."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent, which then closes the pipe
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of parsers must not reach the pipe
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    _limit_memory(memory_bytes)
    _limit_files()
    while True:
        _serve(requests.get(), replies)


def _serve(request: dict[str, Any], replies: BinaryIO) -> None:
    _limit_cpu(request["seconds"])
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
    except BadDocumentError as bad:
        _send(replies, {"error": [bad.code, bad.message]})
    except MemoryError:
        pieces.close()
        _send(replies, {"error": ["out_of_memory", "reading it took more memory than is allowed"], "last": True})
        os._exit(1)  # do not continue after running out of memory
    except Exception as error:  # noqa: BLE001 - parsers raise anything; the parent gets it as a code
        _send(replies, {"error": ["load_failed", f"{type(error).__name__}: {error}"[:500]]})


def _send(replies: BinaryIO, reply: dict[str, Any]) -> None:
    body = json.dumps(reply).encode("ascii")
    replies.write(struct.pack(">I", len(body)) + body)
    replies.flush()


def _receive(stream: BinaryIO, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass on requests. The end of the pipe ends the process, whatever the main thread is doing."""
    for line in iter(stream.readline, b""):
        requests.put(json.loads(line))
    os._exit(0)


def _die_with(parent: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(0)


def _limit_cpu(seconds: float) -> None:
    """Limit the processor time of the next file, because a suspended parent does not check the clock."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(min(used.ru_utime + used.ru_stime + seconds + _CPU_SPARE_SECONDS, _MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _limit_files() -> None:
    """Forbid writing files. The hard limit is lowered too, because the soft one can be raised up to it."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _limit_memory(memory_bytes: int) -> None:
    if not memory_bytes or sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
