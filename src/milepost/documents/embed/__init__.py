"""The embedder protocol, and the built-in embedders by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from milepost.documents.configuration import current

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODELS: Final = ("minilm", "wordllama", "hashing", "http")
Tick = Callable[[], object]


class Embedder(Protocol):
    """Turns texts into unit vectors.

    `model` identifies everything that changes a vector (weights, version, dimension); vectors are stored under it and
    only compared within it. `max_tokens` is the number of word pieces after which the model truncates, or None.
    """

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int | None: ...

    @property
    def batch(self) -> int:
        """The best number of texts per call: enough to be fast, few enough for frequent progress."""
        ...

    def embed(self, texts: Sequence[str], *, tick: Tick | None = None) -> NDArray[np.float32]:
        """Return an array of shape (len(texts), dimension) with rows of length 1, in the order of the texts.

        A text gives the same vector whatever the other texts are. `tick` is called between batches and while waiting,
        and may raise to give up.
        """
        ...

    def close(self) -> None:
        """Free connections. The embedder can be used again."""
        ...


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows scaled to length 1. A row of zeros becomes the first axis, so that every text has a direction."""
    import numpy as np

    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    unit[norms[:, 0] == 0, 0] = 1.0
    return unit


def check_model(name: str) -> None:
    """Check an embedder name. Raises `ValueError` if `get_embedder` does not know it."""
    kind, _, rest = name.partition(":")
    if kind not in MODELS or (rest and kind in ("minilm", "wordllama")):
        raise ValueError(f"unknown model {name!r}; choose from {', '.join(MODELS)} (as http:NAME)")
    if kind == "hashing" and rest and not rest.isdecimal():
        raise ValueError(f"the model hashing takes a number of dimensions such as hashing:256, not {rest!r}")


def get_embedder(
    name: str = "minilm",
    *,
    model_path: str | None = None,
    endpoint: str | None = None,
    dimension: int = 0,
    max_wait: float = 600.0,
    on_wait: Callable[[str], object] | None = None,
) -> Embedder:
    """Return an embedder by name.

    `minilm` (384 dimensions, the default), `wordllama` (256, much faster, weaker), `hashing` (no model, matches words
    only), or `http` and `http:MODEL` for an OpenAI-compatible `endpoint`. The default of `endpoint` is
    `MILEPOST_EMBEDDING_URL`; only that URL is sent the key in `MILEPOST_EMBEDDING_KEY`. `on_wait` is called with the
    reason of a wait, up to `max_wait` seconds. With `dimension` the endpoint's vectors must have that length.

    Raises `ValueError` for an unknown name or a model file with another checksum, and `ImportError` for a missing
    package.
    """
    check_model(name)
    kind, _, rest = name.partition(":")
    if kind == "minilm":
        from milepost.documents.embed.minilm import MiniLM

        return MiniLM(model_path=model_path or current().model_path)
    if kind == "wordllama":
        from milepost.documents.embed.wordllama import WordLlama

        return WordLlama()
    if kind == "hashing":
        from milepost.documents.embed.hashing import HashingEmbedder

        return HashingEmbedder(int(rest) if rest else 256)
    from milepost.documents.embed.http import HttpEmbedder

    url, key = current().embedding(endpoint)
    if not url:
        raise ValueError(f"model={name} requires endpoint=URL or MILEPOST_EMBEDDING_URL, e.g. http://localhost:8080/v1")
    name = rest or "default"
    return HttpEmbedder(url, model=name, key=key, max_wait=max_wait, dimension=dimension, on_wait=on_wait)
