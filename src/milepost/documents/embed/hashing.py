"""An embedder without a model that hashes words into the dimensions of a vector.

It finds texts that share words, at about ten thousand chunks a second, for tests and experiments.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from milepost.documents.embed import Tick, unit_rows

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
