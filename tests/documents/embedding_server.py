"""An OpenAI-compatible server for embeddings and chat on a free port, which fails on command."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from milepost.documents.embed import HashingEmbedder

Failure = tuple[int, dict[str, str], bytes]


@dataclass
class Server:
    """The requests received, and the next responses: each entry of `failures` is one."""

    url: str = ""
    failures: list[Failure] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    chat: Callable[[dict[str, Any]], str] = lambda body: "{}"
    refuses: Callable[[str], bool] = lambda text: False  # a text that is too long for the model: status 400
    relevance: Callable[[str], float] = lambda text: 0.0
    delay: float = 0.0
    most_at_once: int = 0


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    lock = threading.Lock()
    run_in_threads = 0
    embedder = HashingEmbedder(64)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal run_in_threads
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                run_in_threads += 1
                server.most_at_once = max(server.most_at_once, run_in_threads)
                server.requests.append((self.path, body, dict(self.headers)))
                failure = server.failures.pop(0) if server.failures else None
            time.sleep(server.delay)
            with lock:
                run_in_threads -= 1
            if failure is not None:
                self.answer(*failure)
            elif self.path.endswith("/embeddings") and any(map(server.refuses, body["input"])):
                self.answer(400, {}, b"the input is longer than the context of 512 tokens")
            elif self.path.endswith("/embeddings"):
                vectors = embedder.embed(body["input"])
                data = [{"index": row, "embedding": [float(x) * 3 for x in v]} for row, v in enumerate(vectors)]
                self.answer(200, {}, json.dumps({"data": data[::-1]}).encode())
            elif self.path.endswith("/rerank"):
                scores = [server.relevance(text) for text in body["documents"]]
                results = [{"index": row, "relevance_score": score} for row, score in enumerate(scores)]
                self.answer(200, {}, json.dumps({"results": results[::-1]}).encode())
            else:
                message = {"role": "assistant", "content": server.chat(body)}
                self.answer(200, {}, json.dumps({"choices": [{"message": message}]}).encode())

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
