"""Communities of a graph by the Leiden algorithm: rounds, coarser levels and labels.

The same edges in the same order and the same seed give the same communities, and their ids follow from their members.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from milepost.documents.extract import COMMON_WORDS
from milepost.documents.store.records import Community

if TYPE_CHECKING:
    from milepost.documents.store import DocumentStore

Edge: TypeAlias = tuple[str, str, float]
_GAIN: Final = 1e-6
_RANDOMNESS: Final = 0.001
_NAMES_IN_LABEL: Final = 3
_TEXT_BATCH: Final = 200
TEXTS_FOR_LABEL: Final = 200
_WORD: Final = re.compile(r"[^\W\d_]{3,}")


def leiden_rounds(
    edges: list[Edge], resolution: float, seed: int, rounds: int
) -> Iterator[tuple[float, dict[str, int]]]:
    """Yield (modularity, community of each node) after each round, until a round gains nothing.

    Each round continues from the previous one. A caller may stop between rounds.
    """
    best, found = _leiden(edges, None, resolution, seed)
    yield best, found
    for number in range(1, rounds):
        score, better = _leiden(edges, found, resolution, seed + number)
        if score <= best + _GAIN:
            return
        best, found = score, better
        yield best, found


def community_graph(edges: list[Edge], communities: dict[str, int]) -> list[Edge]:
    """Return the graph of communities, with edge weights added up."""
    weights: dict[tuple[int, int], float] = defaultdict(float)
    for one, two, weight in edges:
        low, high = sorted((communities[one], communities[two]))
        if low != high:
            weights[low, high] += weight
    return [(str(low), str(high), weight) for (low, high), weight in sorted(weights.items())]


def coarsen(communities: dict[str, int], found: dict[str, int]) -> dict[str, int]:
    """Return the community of each node one level up. An unconnected community stays as it is."""
    places: dict[tuple[bool, int], int] = {}
    above = {}
    for node in sorted(communities):
        community = communities[node]
        lone = str(community) not in found
        place = (lone, community if lone else found[str(community)])
        above[node] = places.setdefault(place, len(places))
    return above


def community_rows(levels: list[dict[str, int]], name: Callable[[list[str]], str]) -> list[Community]:
    """Return labelled communities from the community of each node on each level, the finest first."""
    members = [_members(level) for level in levels]
    ids = [{number: _id(level, nodes) for number, nodes in some.items()} for level, some in enumerate(members)]
    communities = []
    for level, some in enumerate(members):
        for number, nodes in some.items():
            parent = ids[level + 1][levels[level + 1][nodes[0]]] if level + 1 < len(levels) else None
            communities.append(Community(ids[level][number], level, name(nodes), len(nodes), parent, tuple(nodes)))
    return sorted(communities, key=lambda community: (community.level, -community.size, community.community_id))


def name_by_entities(store: DocumentStore, advance: Callable[[int], object]) -> Callable[[list[str]], str]:
    """Label communities by their entities mentioned in most chunks. `advance` is called with the number of entities."""
    known = {entity.entity_id: entity for entity in store.entities(limit=10_000_000)}

    def name(entity_ids: list[str]) -> str:
        advance(len(entity_ids))
        entities = sorted((known[i] for i in entity_ids if i in known), key=lambda e: (-e.chunks, e.entity_id))
        return ", ".join(entity.name for entity in entities[:_NAMES_IN_LABEL])

    return name


def name_by_words(
    store: DocumentStore, chunk_ids: Sequence[str], advance: Callable[[int], object]
) -> Callable[[list[str]], str]:
    """Label communities by the words that their chunks use more than others. `advance` is called with the number of
    texts read.
    """
    everywhere: Counter[str] = Counter()
    for start in range(0, len(chunk_ids), _TEXT_BATCH):
        texts = store.chunk_texts(chunk_ids[start : start + _TEXT_BATCH])
        for chunk in texts:
            everywhere.update(_words(chunk.text))
        advance(len(texts))

    def name(members: list[str]) -> str:
        here: Counter[str] = Counter()
        texts = store.chunk_texts(members[:TEXTS_FOR_LABEL])
        for chunk in texts:
            here.update(_words(chunk.text))
        advance(len(texts))
        telling = sorted(here, key=lambda word: (-here[word] * here[word] / everywhere[word], word))
        return ", ".join(telling[:_NAMES_IN_LABEL])

    return name


def _leiden(
    edges: list[Edge], start: dict[str, int] | None, resolution: float, seed: int
) -> tuple[float, dict[str, int]]:
    import graspologic_native

    score, found = graspologic_native.leiden(
        edges,
        starting_communities=start,
        resolution=resolution,
        randomness=_RANDOMNESS,
        iterations=1,
        use_modularity=True,
        seed=seed,
        trials=1,
    )
    return float(score), dict(found)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold())) - COMMON_WORDS


def _members(level: dict[str, int]) -> dict[int, list[str]]:
    members: dict[int, list[str]] = defaultdict(list)
    for node in sorted(level):
        members[level[node]].append(node)
    return dict(members)


def _id(level: int, nodes: list[str]) -> str:
    return f"{level}-{hashlib.sha256(chr(0).join(nodes).encode()).hexdigest()[:12]}"
