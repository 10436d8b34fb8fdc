"""The k-nearest-neighbour graph of vectors, computed block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from milepost.documents.leiden import Edge

BLOCK_ROWS: Final = 512
_MIN_COSINE: Final = 0.05


def neighbour_graph(
    blocks: Sequence[tuple[list[str], NDArray[np.float32]]], k: int, advance: Callable[[int], object]
) -> list[Edge]:
    """Connect each row to its `k` nearest others: (id, id, cosine), each pair once, sorted by position.

    `blocks` are (ids, unit vectors of shape (n, dimension)). Needs memory for all vectors and for the cosines of one
    block with all of them. `advance` is called for each block, and may raise to give up.
    """
    import numpy as np

    ids = [identifier for some, _ in blocks for identifier in some]
    if len(ids) < 2:
        return []
    vectors = np.concatenate([some for _, some in blocks])
    count = min(k, len(ids) - 1)
    firsts, seconds, weights = [], [], []
    for start in range(0, len(ids), BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, len(ids)))
        scores = vectors[rows] @ vectors.T
        scores[np.arange(len(rows)), rows] = -np.inf
        near = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        cosines = np.take_along_axis(scores, near, axis=1).ravel()
        one, two = np.repeat(rows, count), near.ravel()
        alike = cosines > _MIN_COSINE
        firsts.append(np.minimum(one, two)[alike])
        seconds.append(np.maximum(one, two)[alike])
        weights.append(cosines[alike])
        advance(len(rows))
    pair = np.concatenate(firsts).astype(np.int64) * len(ids) + np.concatenate(seconds)
    _, places = np.unique(pair, return_index=True)
    weight = np.concatenate(weights)[places]
    first, second = np.concatenate(firsts)[places], np.concatenate(seconds)[places]
    return [(ids[a], ids[b], float(w)) for a, b, w in zip(first, second, weight, strict=True)]
