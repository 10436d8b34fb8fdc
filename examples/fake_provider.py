"""A stand-in for a provider of language models: it streams tokens, answers 429 above its rate, and counts what it was asked.

    python examples/fake_provider.py 8400 --rate 8

It has OpenAI's chat API at http://127.0.0.1:8400/v1, and answers each prompt in capitals. `GET /bill` says what was paid for:
like a real provider, it counts an answer that began to stream, also if the caller was gone before its end.
"""

import argparse
import json
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECONDS_PER_TOKEN = 0.02


class Provider(ThreadingHTTPServer):
    """Counts the calls of all its callers. `rate` is how many it allows in a second."""

    def __init__(self, port: int, rate: int) -> None:
        super().__init__(("127.0.0.1", port), Calls)
        self.rate, self.lock = rate, threading.Lock()
        self.starts: deque[float] = deque()
        self.paid: Counter[str] = Counter()
        self.open = self.most_at_once = self.refused = 0

    def begin(self, prompt: str) -> bool:
        """Count a call and return whether the rate allows it."""
        with self.lock:
            now = time.monotonic()
            while self.starts and self.starts[0] <= now - 1:
                self.starts.popleft()
            if len(self.starts) >= self.rate:
                self.refused += 1
                return False
            self.starts.append(now)
            self.paid[prompt] += 1
            self.open += 1
            self.most_at_once = max(self.most_at_once, self.open)
            return True

    def end(self) -> None:
        """Count the end of a call."""
        with self.lock:
            self.open -= 1


class Calls(BaseHTTPRequestHandler):
    """POST /v1/chat/completions and GET /bill."""

    server: Provider

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        if not self.server.begin(prompt):
            self.send_response(429)
            self.send_header("Retry-After", "1")
            self.end_headers()
            return
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for word in prompt.upper().split():
                time.sleep(SECONDS_PER_TOKEN)
                self.send({"choices": [{"delta": {"content": f"{word} "}}]})
            self.send({"choices": [], "usage": {"total_tokens": tokens(prompt)}})
            self.wfile.write(b"data: [DONE]\n\n")
        except ConnectionError:
            pass  # the caller is gone
        finally:
            self.server.end()

    def do_GET(self) -> None:
        with self.server.lock:
            bill = {
                "paid": [{"prompt": one, "times": n, "tokens": n * tokens(one)} for one, n in self.server.paid.items()],
                "most_at_once": self.server.most_at_once,
                "refused": self.server.refused,
            }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(bill).encode())

    def send(self, chunk: dict[str, object]) -> None:
        """Stream one chunk."""
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Write no line for each call."""


def tokens(prompt: str) -> int:
    """Return the tokens of a prompt and its answer: here a word is a token."""
    return 2 * len(prompt.split())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int, help="a port of this machine, or 0 for a free one")
    parser.add_argument("--rate", type=int, default=8, help="calls that it allows in a second")
    words = parser.parse_args()
    provider = Provider(words.port, words.rate)
    print(f"http://127.0.0.1:{provider.server_port}/v1", flush=True)
    provider.serve_forever()
