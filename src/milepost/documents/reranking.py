"""Rank the hits of a search by a model that reads query and text together, at an endpoint ``/rerank``.

Its form is that of Cohere, Jina, vLLM, llama.cpp and Text Embeddings Inference behind them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from milepost.core.errors import InvalidInputError
from milepost.documents.configuration import current
from milepost.documents.http_endpoint import HttpEndpoint, MalformedResponseError
from milepost.documents.store.records import Hit

_MIN_CANDIDATES: Final = 50
_TRIES: Final = 3


def candidates(k: int, most: int) -> int:
    """Return how many hits of a search are worth reranking for the best `k`."""
    return min(most, max(2 * k, _MIN_CANDIDATES))


class Reranker:
    """The operator's reranking server. Raises InvalidInputError if none is configured."""

    def __init__(self, *, max_wait: float) -> None:
        configuration = current()
        if configuration.rerank_url is None:
            raise InvalidInputError("rerank", "this server has no reranker; its operator must set MILEPOST_RERANK_URL")
        self._model = configuration.rerank_model
        self._endpoint = HttpEndpoint(
            configuration.rerank_url, key=configuration.rerank_key, timeout=max_wait, max_wait=max_wait
        )

    def rank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits by relevance, best first, which is their new score. Raises `EndpointError`."""
        if not hits:
            return []
        texts = [f"{hit.heading}\n{hit.text}" if hit.heading else hit.text for hit in hits]
        body: dict[str, Any] = {"query": query, "documents": texts, "top_n": len(texts)}
        if self._model is not None:
            body["model"] = self._model
        scores = self._endpoint.post("/rerank", body, lambda answer: _scores(answer, len(texts)), tries=_TRIES)
        ranked = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
        return sorted(ranked, key=lambda hit: -hit.score)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()


def _scores(answer: dict[str, Any], count: int) -> list[float]:
    """Return the score of each text. Raises MalformedResponseError unless each has one."""
    found: dict[int, float] = {}
    results = answer.get("results")
    for result in results if isinstance(results, list) else []:
        index, score = (
            (result.get("index"), result.get("relevance_score")) if isinstance(result, dict) else (None, None)
        )
        if isinstance(index, int) and isinstance(score, int | float) and math.isfinite(score):
            found[index] = float(score)
    if set(found) != set(range(count)):
        raise MalformedResponseError("the reranking server sent a response without a relevance_score for each text")
    return [found[index] for index in range(count)]
