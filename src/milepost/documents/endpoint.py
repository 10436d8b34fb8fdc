"""Requests to an OpenAI-compatible endpoint, patient with what passes.

Owns the connection, its key and the decision which failures are worth a second try:
429, 5xx, 408 and anything that breaks the connection are, with growing waits or the
wait that the server asks for. Knows neither vectors nor prompts.
"""

from __future__ import annotations

import email.utils
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_TRANSIENT: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_SERVER_ERRORS: Final = frozenset({500, 502, 504})
_LONGEST_WAIT: Final = 60.0
_TICK_SECONDS: Final = 0.1


class EndpointError(RuntimeError):
    """An endpoint refused a request, or failed for longer than its caller was patient; `status` is 0 for the latter."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Endpoint:
    """One base URL, such as ``http://localhost:8080/v1``, used by several threads at once.

    `patience` is how many seconds a request may fail in a passing way before
    `EndpointError` is raised; `timeout` is for one try, in seconds. `waiting` hears
    often why a request is not tried again yet, then an empty text; it may raise to give up.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        patience: float = 600.0,
        waiting: Callable[[str], object] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"an endpoint is an http or https URL, not {url!r}")
        key = (key or "").strip()  # a file's last line end is no part of a key
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the key of an endpoint has characters that cannot be sent, such as a line end")
        self._url = url.rstrip("/")
        self._key = key
        self._timeout = timeout
        self._patience = patience
        self._waiting = waiting or (lambda reason: None)
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self.host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname

    def post(
        self, path: str, body: dict[str, Any], *, stop: threading.Event | None = None, tries: int | None = None
    ) -> dict[str, Any]:
        """Send JSON and return the JSON object of the answer.

        `tries` bounds how often a 5xx that is no 503 is asked again: such an answer may be due to the request.

        Raises `EndpointError` for a refusal, for an answer that is no JSON object, when patience ends,
        and soon after `stop` was set.
        """
        import httpx

        stop = stop or threading.Event()
        deadline = time.monotonic() + self._patience
        attempt = errors = 0
        while True:
            attempt += 1
            asked = None
            try:
                response = self._connected().post(f"{self._url}{path}", json=body)
            except httpx.DecodingError as error:
                raise EndpointError(f"{self.host} answered with what cannot be unpacked: {error}") from error
            except httpx.TransportError as error:
                failure = EndpointError(f"{self.host} cannot be reached: {type(error).__name__} {error}")
            else:
                if response.status_code < 300:
                    if attempt > 1:
                        self._waiting("")
                    return _object(response, self.host)
                text = " ".join(response.text[:300].split())
                failure = EndpointError(f"{self.host} answered {response.status_code}: {text}", response.status_code)
                errors += response.status_code in _SERVER_ERRORS
                if response.status_code not in _TRANSIENT or (tries is not None and errors >= tries):
                    raise failure
                asked = _retry_after(response.headers.get("retry-after"))
            backoff = min(_LONGEST_WAIT, 0.5 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)
            seconds = backoff if asked is None else min(asked, _LONGEST_WAIT)
            resume = time.monotonic() + seconds
            if resume > deadline:
                raise failure
            while (left := resume - time.monotonic()) > 0:
                self._waiting(str(failure))
                if stop.wait(min(left, _TICK_SECONDS)):
                    raise failure

    def close(self) -> None:
        """Close the connections; the endpoint may be used again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
                self._client = httpx.Client(headers=headers, timeout=self._timeout)
            return self._client


def in_parallel(
    ask: Callable[[T, threading.Event], Any],
    items: Iterable[T],
    *,
    concurrency: int,
    tick: Callable[[], object] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (position, answer) of each item as answers come, `concurrency` at a time.

    `tick` is called about ten times a second; what it or an answer raises stops the
    others and is raised. Exceptions of `ask` are raised here.
    """
    stop = threading.Event()
    left = list(enumerate(items))[::-1]
    open_questions = len(left)
    answers: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while not stop.is_set():
            try:
                position, item = left.pop()
            except IndexError:
                return  # the others have taken the rest
            try:
                answers.put((position, ask(item, stop), None))
            except BaseException as error:  # noqa: BLE001 - raised by whoever takes it
                answers.put((position, None, error))

    # Not an executor: the end of the process would wait for what a silent endpoint was asked.
    for _ in range(min(concurrency, open_questions)):
        threading.Thread(target=work, name="milepost-endpoint", daemon=True).start()
    try:
        while open_questions:
            try:
                position, answer, failure = answers.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                if tick is not None:
                    tick()
                continue
            if tick is not None:
                tick()
            if failure is not None:
                raise failure
            open_questions -= 1
            yield position, answer
    finally:
        stop.set()


def _object(response: httpx.Response, host: str) -> dict[str, Any]:
    try:
        answer = response.json()
    except (ValueError, RecursionError) as error:
        raise EndpointError(f"{host} answered with no JSON: {response.text[:100]!r}", response.status_code) from error
    if not isinstance(answer, dict):
        raise EndpointError(f"{host} answered with no JSON object", response.status_code)
    return answer


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, from a Retry-After header of either form."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())
