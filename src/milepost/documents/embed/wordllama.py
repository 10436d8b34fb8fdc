"""The fast embedder: wordllama's static token vectors, averaged.

About two thousand chunks a second and 256 dimensions; weaker than MiniLM. The weights are in the installed package, so
nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.embed import Tick, unit_rows
from milepost.documents.tokenizer import read_checked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
SHA256: Final = "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
_BATCH: Final = 64


class WordLlama:
    """256 dimensions without a length limit. Raises `ImportError` if the package `wordllama` is missing."""

    model = "wordllama-l2-supercat-256"
    dimension = 256
    max_tokens: int | None = None
    batch = _BATCH

    def __init__(self) -> None:
        self._inference: Any = None

    def embed(self, texts: Sequence[str], *, tick: Tick | None = None) -> NDArray[np.float32]:
        """Return an array of shape (len(texts), 256) with rows of length 1."""
        import numpy as np

        inference = self._loaded()
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            if tick is not None:
                tick()
            batch = list(texts[start : start + _BATCH])
            vectors[start : start + len(batch)] = inference.embed(batch, norm=False)
        return unit_rows(vectors)

    def close(self) -> None:
        """Free the weights."""
        self._inference = None

    def _loaded(self) -> Any:
        if self._inference is None:
            try:
                import wordllama
            except ImportError as error:
                raise ImportError("the package wordllama is not installed; run: pip install wordllama") from error
            folder = Path(wordllama.__file__).parent
            read_checked(folder / WEIGHTS, SHA256)
            self._inference = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        return self._inference
