"""Requests to an OpenAI-compatible endpoint, with retries.

Statuses 408, 429 and 5xx and broken connections are retried with backoff or as `Retry-After` says. Errors are visible
to everyone who may read the job, so they contain neither the URL nor any secret that a response repeats.
"""

from __future__ import annotations

import base64
import email.utils
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from milepost.forks import reset_after_fork

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_TRANSIENT: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
WRONG_SETTINGS: Final = frozenset({401, 402, 403, 404, 405})
"""Statuses that every request would get: a wrong key, URL or model."""
_SERVER_ERRORS: Final = frozenset({500, 502, 504})
_MAX_DELAY: Final = 60.0
_TICK_SECONDS: Final = 0.1
MAX_RESPONSE_BYTES: Final = 32 * 1024 * 1024


class EndpointError(RuntimeError):
    """Raised if an endpoint refuses a request, or keeps failing. `status` is that of the last response, 0 without one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class EndpointUnusableError(EndpointError):
    """Raised if transient failures outlast the maximum wait, the caller gave up, or the endpoint serves another model."""


class MalformedResponseError(EndpointError):
    """Raised if an endpoint reports success without the requested data."""


class HttpEndpoint:
    """One base URL, such as ``http://localhost:8080/v1``, usable from several threads.

    `max_wait` is how many seconds transient failures are retried before `EndpointError` is raised; `timeout` is for one
    attempt, in seconds. `on_wait` is called often with the reason of a wait, then with an empty string; it may raise to
    give up.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        max_wait: float = 600.0,
        on_wait: Callable[[str], object] | None = None,
    ) -> None:
        parts = _parts(url)
        key = (key or "").strip()  # a trailing newline from a file is not part of the key
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the key of the endpoint contains characters that cannot be sent, such as a newline")
        host = parts.netloc.rpartition("@")[2]
        self._url = parts._replace(netloc=host).geturl().rstrip("/")  # httpx logs it
        self._login = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        self._key = key
        self._timeout = timeout
        self._patience = max_wait
        self._waiting = on_wait or (lambda reason: None)
        self.after_fork()
        reset_after_fork(self)
        self._secrets = _secrets(key, self._login)
        self.host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    def after_fork(self) -> None:
        """Leave the connections to the parent, which would get responses of the child."""
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def post(
        self,
        path: str,
        body: dict[str, Any],
        read: Callable[[dict[str, Any]], T],
        *,
        stop: threading.Event | None = None,
        tries: int | None = None,
    ) -> T:
        """Send JSON, and return what `read` makes of the JSON object of the response.

        `read` may raise `MalformedResponseError`. Such a response, one that is not a JSON object and a 5xx other than
        503 are sent at most `tries` times, because the request may be their cause. Raises `EndpointError` then and for
        a refusal, and `EndpointUnusableError` after the maximum wait and soon after `stop` is set.
        """
        import httpx

        stop = stop or threading.Event()
        deadline = time.monotonic() + self._patience
        attempt = errors = 0
        while True:
            attempt += 1
            asked = None
            try:
                status, headers, content = self._ask(path, body)
                asked = _retry_after(headers.get("retry-after"))
                answer = self._read(status, content, read)
            except httpx.InvalidURL:
                raise EndpointUnusableError(f"the URL of {self.host} is not valid") from None
            except httpx.TransportError as error:
                failure = EndpointError(
                    f"could not connect to {self.host}: {type(error).__name__} {self.hide(str(error))}"
                )
            except EndpointError as error:
                failure = error
                is_malformed = isinstance(error, MalformedResponseError)
                errors += is_malformed or error.status in _SERVER_ERRORS
                if not (is_malformed or error.status in _TRANSIENT) or (tries is not None and errors >= tries):
                    raise
            else:
                if attempt > 1:
                    self._waiting("")
                return answer
            backoff = min(_MAX_DELAY, 0.5 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)
            seconds = backoff if asked is None else min(asked, _MAX_DELAY)
            resume = time.monotonic() + seconds
            if resume > deadline:
                raise EndpointUnusableError(str(failure), failure.status)
            while (left := resume - time.monotonic()) > 0:
                self._waiting(str(failure))
                if stop.wait(min(left, _TICK_SECONDS)):
                    raise EndpointUnusableError(str(failure), failure.status)

    def hide(self, text: str) -> str:
        """Return a text of the server with the key, user and password redacted."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def close(self) -> None:
        """Close the connections. The endpoint can be used again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, path: str, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Return status, headers and content of one response. Raises `EndpointError` if the content is too large."""
        import httpx

        content = bytearray()
        with self._connected().stream("POST", f"{self._url}{path}", json=body) as response:
            try:
                for part in response.iter_bytes():
                    content += part
                    if len(content) > MAX_RESPONSE_BYTES:
                        raise EndpointError(
                            f"{self.host} sent more than {MAX_RESPONSE_BYTES:,} bytes", response.status_code
                        )
            except httpx.DecodingError as error:
                raise MalformedResponseError(
                    f"{self.host} sent a response that cannot be decompressed: {error}"
                ) from error
            return response.status_code, response.headers, bytes(content)

    def _read(self, status: int, content: bytes, read: Callable[[dict[str, Any]], T]) -> T:
        """Return what `read` makes of a response. Raises `EndpointError` for another status than success."""
        if status >= 300:
            raise EndpointError(f"{self.host} responded with status {status}: {self._shown(content, 300)}", status)
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            shown = self._shown(content, 100)
            raise MalformedResponseError(f"{self.host} sent a response that is not JSON: {shown!r}", status) from None
        if not isinstance(answer, dict):
            raise MalformedResponseError(f"{self.host} sent a response that is not a JSON object", status)
        return read(answer)

    def _shown(self, content: bytes, length: int) -> str:
        """Return the beginning of a response for people, redacted before it is cut."""
        return " ".join(self.hide(content.decode("utf-8", "replace"))[:length].split())

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
                self._client = httpx.Client(headers=headers, auth=self._login, timeout=self._timeout)
            return self._client


def in_parallel(
    ask: Callable[[T, threading.Event], Any],
    items: Iterable[T],
    *,
    concurrency: int,
    tick: Callable[[], object] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (position, response) of each item as responses arrive, `concurrency` at a time.

    `tick` is called about ten times a second. An exception of `tick` or `ask` stops the others and is raised.
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
                return  # no items are left
            try:
                answers.put((position, ask(item, stop), None))
            except BaseException as error:  # noqa: BLE001 - raised by the consumer
                answers.put((position, None, error))

    # Not an executor, because the process would wait at its end for an unresponsive endpoint.
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


def _parts(url: str) -> SplitResult:
    """Parse a URL. The `ValueError` for an invalid one does not show it, because it may contain a password."""
    try:
        parts = urlsplit(url)
        if (
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and "?" not in url
            and "#" not in url
        ):
            return parts
    except ValueError:
        pass
    raise ValueError(
        "an endpoint must be an http or https URL with a host and without a query, such as http://localhost:8080/v1"
    )


def _secrets(key: str, login: tuple[str, str] | None) -> list[str]:
    """Return the secrets of a request in all forms in which a response may repeat them, longest first."""
    given = {key}
    if login is not None:
        user = ":".join(login)
        given |= {user, *login, base64.b64encode(user.encode()).decode()}
    forms = {form for text in given for form in (text, quote(text, safe=""), json.dumps(text)[1:-1])}
    forms |= {text.replace("/", "\\/") for text in forms}
    return sorted(filter(None, forms), key=len, reverse=True)


def _retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header of either form."""
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
