"""An embedder for any OpenAI-compatible ``/v1/embeddings``, with concurrent requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.embed import Tick, unit_rows
from milepost.documents.http_endpoint import EndpointError, HttpEndpoint, in_parallel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH: Final = 16
_CONCURRENCY: Final = 4


class HttpEmbedder:
    """Vectors from a server. `url` is its base, such as ``https://api.example.com/v1``.

    The dimension is requested from the server at first use, unless it is given. 429 and 5xx responses are retried for
    `max_wait` seconds; refused requests raise `EndpointError`.
    """

    max_tokens: int | None = None

    def __init__(
        self,
        url: str,
        *,
        model: str = "default",
        key: str | None = None,
        batch: int = _BATCH,
        concurrency: int = _CONCURRENCY,
        timeout: float = 60.0,
        max_wait: float = 600.0,
        dimension: int = 0,
        on_wait: Callable[[str], object] | None = None,
    ) -> None:
        if batch < 1 or concurrency < 1:
            raise ValueError("batch and concurrency must be at least 1")
        self._endpoint = HttpEndpoint(url, key=key, timeout=timeout, max_wait=max_wait, on_wait=on_wait)
        self._waiting = on_wait or (lambda reason: None)
        self._asked_model = model
        self._batch = batch
        self.batch = batch * concurrency
        self._concurrency = concurrency
        self._dimension = dimension
        self.model = f"http:{model}" if model != "default" else f"http:default@{self._endpoint.host}"

    @property
    def dimension(self) -> int:
        """The length of a vector, requested from the server if it is unknown."""
        if not self._dimension:
            self.embed(
                ["dimension"], tick=lambda: self._waiting(f"requesting the dimension from {self._endpoint.host}")
            )
            self._waiting("")
        return self._dimension

    def embed(self, texts: Sequence[str], *, tick: Tick | None = None) -> NDArray[np.float32]:
        """Return an array of shape (len(texts), dimension) with rows of length 1."""
        import numpy as np

        batches = [texts[start : start + self._batch] for start in range(0, len(texts), self._batch)]
        answers: list[NDArray[np.float32] | None] = [None] * len(batches)
        for position, vectors in in_parallel(self._ask, batches, concurrency=self._concurrency, tick=tick):
            answers[position] = vectors
        found = [vectors for vectors in answers if vectors is not None]
        return np.concatenate(found) if found else np.zeros((0, self.dimension), dtype=np.float32)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _ask(self, texts: Sequence[str], stop: threading.Event) -> NDArray[np.float32]:
        import numpy as np

        body = {"model": self._asked_model, "input": list(texts), "encoding_format": "float"}
        answer = self._endpoint.post("/embeddings", body, stop=stop)
        try:
            rows: list[Any] = sorted(answer["data"], key=lambda row: int(row["index"]))
            vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            shown = self._endpoint.hide(str(error))
            raise EndpointError(f"{self._endpoint.host} sent a response without embeddings: {shown}") from None
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.size:
            raise EndpointError(f"{self._endpoint.host} sent vectors of shape {vectors.shape} for {len(texts)} texts")
        if not np.isfinite(vectors).all():
            raise EndpointError(f"{self._endpoint.host} sent vectors with non-finite numbers")
        if self._dimension and vectors.shape[1] != self._dimension:
            changed = f"its dimension from {self._dimension} to {vectors.shape[1]}"
            raise EndpointError(f"{self._endpoint.host} changed {changed}; it now serves another model")
        self._dimension = int(vectors.shape[1])
        return unit_rows(vectors)
