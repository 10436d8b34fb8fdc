"""The HTTP endpoint of a worker process, for probes and scrapes: /healthz, /readyz and /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from milepost.app.limits import read_limit_states
from milepost.core.errors import MissingExtraError, StoreError
from milepost.query.depth import DepthGauges, LimitGauges, read_depths
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.worker.worker import Worker

TEXT = "text/plain; charset=utf-8"
REQUEST_SECONDS = 10.0


class WorkerMetrics:
    """The metrics of one worker process. Raises MissingExtraError without prometheus-client."""

    def __init__(self, worker: Worker, store: Store) -> None:
        try:
            import prometheus_client as prometheus
        except ModuleNotFoundError as error:
            raise MissingExtraError("metrics", "milepost worker --metrics-port") from error
        self._prometheus: Any = prometheus
        self._worker = worker
        self._store = store
        self._lock = threading.Lock()
        registry = self._registry = prometheus.CollectorRegistry()
        self._depths = DepthGauges(prometheus, registry)
        self._limits = LimitGauges(prometheus, registry)
        self._running = prometheus.Gauge("milepost_worker_running", "Jobs that this worker runs", registry=registry)
        self._slots = prometheus.Gauge(
            "milepost_worker_concurrency", "Maximum number of jobs that this worker runs at once", registry=registry
        )
        self._up = prometheus.Gauge(
            "milepost_store_up", "1 if the store responded to this scrape, else 0", registry=registry
        )

    def text(self) -> tuple[bytes, str]:
        """Return the metrics and their content type."""
        with self._lock:
            self._running.set(self._worker.running)
            self._slots.set(self._worker.concurrency)
            try:
                self._depths.set(run_sync(read_depths(self._store)))
                self._limits.set(run_sync(read_limit_states(self._store)))
                self._up.set(1)
            except StoreError:
                self._depths.set({})  # old numbers would scale by a queue that may be gone
                self._limits.set([])
                self._up.set(0)
            return self._prometheus.generate_latest(self._registry), self._prometheus.CONTENT_TYPE_LATEST


class WorkerEndpoint:
    """Serves the probes and metrics of a worker in threads, as a context manager. `port` is the one it listens on."""

    def __init__(self, worker: Worker, store: Store, host: str, port: int) -> None:
        self._worker = worker
        self._store = store.with_blocking(blocking=True)
        metrics = WorkerMetrics(worker, self._store)
        routes: dict[str, Callable[[], tuple[int, bytes, str]]] = {
            "/healthz": lambda: (200, b"ok\n", TEXT),
            "/readyz": self._readiness,
            "/metrics": lambda: (200, *metrics.text()),
        }

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_SECONDS

            def do_GET(self) -> None:
                route = routes.get(self.path.partition("?")[0])
                status, body, kind = route() if route is not None else (404, b"not found\n", TEXT)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log no requests: probes come every few seconds."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port

    def _readiness(self) -> tuple[int, bytes, str]:
        """Ready is a worker that has started, is not draining, and whose store responds."""
        if not self._worker.started.is_set():
            return 503, b"starting\n", TEXT
        if self._worker.is_stopping:
            return 503, b"draining\n", TEXT
        try:
            run_sync(self._store.now())
        except StoreError as error:
            return 503, f"store unavailable: {type(error).__name__}\n".encode(), TEXT
        return 200, b"ok\n", TEXT

    def __enter__(self) -> WorkerEndpoint:
        threading.Thread(target=self._server.serve_forever, name="milepost-endpoint", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
