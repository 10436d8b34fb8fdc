"""Text becomes vectors.

Owns the protocol of an embedder and the names under which the built-in ones are
known. Knows no store, no cache and no job: who asks twice computes twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODELS: Final = ("minilm", "wordllama", "hashing", "http")
Tick = Callable[[], object]


class Embedder(Protocol):
    """Turns texts into unit vectors.

    `model` names everything that changes a vector (weights, version, dimension), since
    vectors are kept under it and are only ever compared within it. `max_tokens` is how
    many word pieces the model reads before it stops, or None.
    """

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int | None: ...

    @property
    def batch(self) -> int:
        """How many texts are best handed over at once: enough to be fast, few enough for lively progress."""
        ...

    def embed(self, texts: Sequence[str], *, tick: Tick | None = None) -> NDArray[np.float32]:
        """Return an array of shape (len(texts), dimension), rows of length 1, in the order of the texts.

        The same text gives the same vector whatever stands beside it. `tick` is called
        between batches and while waiting, and may raise to give up.
        """
        ...

    def close(self) -> None:
        """Free connections; the embedder may be used again."""
        ...


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to length 1; a row of zeros becomes the first axis, so that every text has a direction."""
    import numpy as np

    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    unit[norms[:, 0] == 0, 0] = 1.0
    return unit


def check_model(name: str) -> None:
    """Raise `ValueError` for a name that `get_embedder` does not know."""
    kind, _, rest = name.partition(":")
    if kind not in MODELS or (rest and kind in ("minilm", "wordllama")):
        raise ValueError(f"unknown model {name!r}: there are {', '.join(MODELS)} (as http:NAME)")
    if kind == "hashing" and rest and not rest.isdecimal():
        raise ValueError(f"the model hashing takes a number of dimensions, as in hashing:256, not {rest!r}")


def get_embedder(
    name: str = "minilm",
    *,
    model_path: str | None = None,
    endpoint: str | None = None,
    dimension: int = 0,
    patience: float = 600.0,
    waiting: Callable[[str], object] | None = None,
) -> Embedder:
    """Make an embedder by name.

    `minilm` (384 dimensions, the default), `wordllama` (256, much faster, weaker), `hashing` (no model at all:
    words that match, nothing else), or `http` and `http:MODEL` for an OpenAI-compatible `endpoint`
    (or `MILEPOST_EMBEDDING_URL`; its key in `MILEPOST_EMBEDDING_KEY`). `waiting` hears why an endpoint is waited for,
    up to `patience` seconds; with `dimension` its vectors must have that.

    Raises `ValueError` for an unknown name or a model file that is not the expected one, `ImportError` when its
    package is missing.
    """
    check_model(name)
    kind, _, rest = name.partition(":")
    if kind == "minilm":
        from milepost.documents.embed.minilm import MiniLM

        return MiniLM(model_path=model_path)
    if kind == "wordllama":
        from milepost.documents.embed.wordllama import WordLlama

        return WordLlama()
    if kind == "hashing":
        from milepost.documents.embed.hashing import HashingEmbedder

        return HashingEmbedder(int(rest) if rest else 256)
    from milepost.documents.embed.http import HttpEmbedder

    url = endpoint or os.environ.get("MILEPOST_EMBEDDING_URL")
    if not url:
        raise ValueError(f"model={name} needs endpoint=URL or MILEPOST_EMBEDDING_URL, such as http://localhost:8080/v1")
    key = os.environ.get("MILEPOST_EMBEDDING_KEY")
    name = rest or "default"
    return HttpEmbedder(url, model=name, key=key, patience=patience, dimension=dimension, waiting=waiting)
