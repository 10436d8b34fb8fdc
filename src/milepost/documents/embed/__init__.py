"""The embedder protocol, and embedders by name."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from milepost import plugins
from milepost.documents.configuration import current
from milepost.documents.http_endpoint import EndpointError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_WORD: Final = re.compile(r"\w+")


class HashingEmbedder:
    """Vectors of hashed words with `dimension` components."""

    max_tokens: int | None = None
    batch = 64

    def __init__(self, dimension: int = 256) -> None:
        if not 8 <= dimension <= 65536:
            raise ValueError(f"dimension must be from 8 to 65536, not {dimension}")
        self.dimension = dimension
        self.model = f"hashing-{dimension}"

    def embed(self, texts: Sequence[str], *, tick: Tick | None = None) -> NDArray[np.float32]:
        """Return an array of shape (len(texts), dimension) with rows of length 1."""
        import numpy as np

        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            if tick is not None:
                tick()
            for word, count in sorted(Counter(_WORD.findall(text.casefold())).items()):
                number = zlib.crc32(word.encode())
                vectors[row, number % self.dimension] += (1 if number & 0x8000_0000 else -1) * count**0.5
        return unit_rows(vectors)

    def close(self) -> None:
        """Do nothing."""


class EmbeddingRefusedError(EndpointError):
    """Raised if an embedder works, but refuses some of the texts, such as one that is too long for its model.

    `refused` maps positions of texts to the reasons. `vectors` has a row for each text; those of refused texts are zeros.
    """

    def __init__(self, refused: dict[int, str], vectors: NDArray[np.float32]) -> None:
        super().__init__(next(iter(refused.values())))
        self.refused = refused
        self.vectors = vectors


EMBEDDERS: Final = "milepost.embedders"
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
        and may raise to give up. Raises `EmbeddingRefusedError` with the other vectors if some texts are refused.
        """
        ...

    def close(self) -> None:
        """Free connections. The embedder can be used again."""
        ...


@dataclass(frozen=True, slots=True)
class EmbedderOptions:
    """The options of `get_embedder` for the factory of an embedder, which takes what it can use."""

    model_path: str | None = None
    endpoint: str | None = None
    dimension: int = 0
    max_wait: float = 600.0
    on_wait: Callable[[str], object] | None = None


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
    if plugins.find(EMBEDDERS, kind) is None or (rest and kind in ("minilm", "wordllama")):
        raise ValueError(f"unknown model {name!r}; choose from {', '.join(plugins.names(EMBEDDERS))} (as http:NAME)")
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
    """Return an embedder by name: one of the plugins in the group `milepost.embedders`.

    `minilm` (384 dimensions, the default), `wordllama` (256, much faster, weaker), `hashing` (no model, matches words
    only), or `http` and `http:MODEL` for an OpenAI-compatible `endpoint`. The default of `endpoint` is
    `MILEPOST_EMBEDDING_URL`; only that URL is sent the key in `MILEPOST_EMBEDDING_KEY`. `on_wait` is called with the
    reason of a wait, up to `max_wait` seconds. With `dimension` the endpoint's vectors must have that length.

    Raises `ValueError` for an unknown name or a model file with another checksum, and `ImportError` for a missing
    package.
    """
    check_model(name)
    kind, _, rest = name.partition(":")
    plugin = plugins.find(EMBEDDERS, kind)
    assert plugin is not None, "check_model has found it"
    embedder: Embedder = plugin.load()(rest, EmbedderOptions(model_path, endpoint, dimension, max_wait, on_wait))
    return embedder


def open_minilm(argument: str, options: EmbedderOptions) -> Embedder:
    """Return the embedder `minilm`."""
    from milepost.documents.embed.models import MiniLM

    return MiniLM(model_path=options.model_path or current().model_path)


def open_wordllama(argument: str, options: EmbedderOptions) -> Embedder:
    """Return the embedder `wordllama`."""
    from milepost.documents.embed.models import WordLlama

    return WordLlama()


def open_hashing(argument: str, options: EmbedderOptions) -> Embedder:
    """Return the embedder `hashing:DIMENSION`."""

    return HashingEmbedder(int(argument) if argument else 256)


def open_http(argument: str, options: EmbedderOptions) -> Embedder:
    """Return the embedder `http:MODEL`. Raises ValueError without a URL."""
    from milepost.documents.embed.models import HttpEmbedder

    url, key = current().embedding(options.endpoint)
    if not url:
        name = f"http:{argument}" if argument else "http"
        raise ValueError(f"model={name} requires endpoint=URL or MILEPOST_EMBEDDING_URL, e.g. http://localhost:8080/v1")
    return HttpEmbedder(
        url,
        model=argument or "default",
        key=key,
        concurrency=current().embedding_concurrency,
        max_wait=options.max_wait,
        dimension=options.dimension,
        on_wait=options.on_wait,
    )
