"""The clustering job: find communities of related entities or of similar chunks.

The previous clustering is replaced in one step. The same graph and seed give the same communities.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from milepost.documents import stages
from milepost.documents.configuration import current
from milepost.documents.errors import EmptyStoreError
from milepost.documents.extract import COMMON_WORDS
from milepost.documents.job_params import Database
from milepost.documents.pipeline import existing_generation
from milepost.documents.stages import TimedStages, start_run
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Community
from milepost.plugins import command_line_hints
from milepost.run.run import Run
from milepost.run.stages import LiveStage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Edge: TypeAlias = tuple[str, str, float]
_GAIN: Final = 1e-6
_RANDOMNESS: Final = 0.001
_NAMES_IN_LABEL: Final = 3
_TEXT_BATCH: Final = 200
TEXTS_FOR_LABEL: Final = 200
_SUFFIXES: Final = ("ations", "ation", "ings", "ing", "ers", "er", "ed", "es", "s", "e")
_MIN_STEM: Final = 4
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
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for start in range(0, len(chunk_ids), _TEXT_BATCH):
        texts = store.chunk_texts(chunk_ids[start : start + _TEXT_BATCH])
        for chunk in texts:
            roots = {word: stem(word) for word in _words(chunk.text)}
            everywhere.update(set(roots.values()))
            for word, root in roots.items():
                forms[root][word] += 1
        advance(len(texts))

    def name(members: list[str]) -> str:
        here: Counter[str] = Counter()
        texts = store.chunk_texts(members[:TEXTS_FOR_LABEL])
        for chunk in texts:
            here.update(set(map(stem, _words(chunk.text))))
        advance(len(texts))
        telling = sorted(here, key=lambda root: (-here[root] * here[root] / everywhere[root], root))
        return ", ".join(
            min(forms[root], key=lambda word: (-forms[root][word], len(word), word))
            for root in telling[:_NAMES_IN_LABEL]
        )

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


def stem(word: str) -> str:
    """Return the part that the forms of an English word share: ``packag`` of package, packages and packaging."""
    if word.endswith("ies") and len(word) > _MIN_STEM + 2:
        return word[:-3] + "y"
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _MIN_STEM and not word.endswith("ss"):
            return word[: -len(suffix)]
    return word


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold())) - COMMON_WORDS


def _members(level: dict[str, int]) -> dict[int, list[str]]:
    members: dict[int, list[str]] = defaultdict(list)
    for node in sorted(level):
        members[level[node]].append(node)
    return dict(members)


def _id(level: int, nodes: list[str]) -> str:
    return f"{level}-{hashlib.sha256(chr(0).join(nodes).encode()).hexdigest()[:12]}"


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


_ROUNDS: Final = 10
_MAX_LEVELS: Final = 5
_MAX_SEED: Final = 2**63 - 1
_STAGES: Final = ("Loading", "Finding neighbours", "Leiden", "Labelling", "Persisting")


@command_line_hints(
    ("milepost communities --level 0", "list the finest communities"),
    ("milepost draw entities.svg", "draw the entity graph"),
)
def clustering(
    run: Run,
    *,
    of: Literal["entities", "chunks"] = "entities",
    database: Database = None,
    resolution: float = 1.0,
    neighbours: int = 10,
    seed: int = 1,
) -> dict[str, Any]:
    """Find communities with the Leiden algorithm, from fine to coarse.

    `entities` are connected by the chunks that relate them, `chunks` by being among each other's `neighbours` nearest.
    A higher `resolution` gives more and smaller communities. The result has `nodes`, `edges`, `communities`, `levels`,
    the `modularity` of the finest level, and `seconds`. Raises `ValueError` for parameters out of range, and
    `EmptyStoreError` if there are no documents, or no relations between entities.
    """
    if not 0 < resolution <= 1000:
        raise ValueError(f"resolution must be above 0 and at most 1000, not {resolution}")
    if not 1 <= neighbours <= 1000:
        raise ValueError(f"neighbours must be from 1 to 1000, not {neighbours}")
    if not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"seed must be from 0 to {_MAX_SEED}, not {seed}")
    if of not in ("entities", "chunks"):
        raise ValueError(f"of must be 'entities' or 'chunks', not {of!r}")
    store = open_store(database or current().database)
    try:
        start_run(store, run)
        existing_generation(store)
        return _Clustering(run, store, of).cluster(resolution, neighbours, seed)
    finally:
        store.close()


class _Clustering:
    """The stages of one job."""

    def __init__(self, run: Run, store: DocumentStore, of: str) -> None:
        self._run = run
        self._store = store
        self._of = of
        self._stages = TimedStages(run)
        self._counts = store.counts()
        self._shares = dict(zip(_STAGES, _shares(of, self._counts), strict=True))

    def cluster(self, resolution: float, neighbours: int, seed: int) -> dict[str, Any]:
        """Run all stages and return the job's result."""
        edges = self._edges_of_entities() if self._of == "entities" else self._edges_of_chunks(neighbours)
        levels, modularity = self._partition(edges, resolution, seed)
        unit = "member" if self._of == "entities" else "read"  # of communities on all levels, and of texts
        with self._stage("label", "Labelling", total=self._label_work(levels), unit=unit) as stage:
            communities = community_rows(levels, self._label_function(levels, stage.advance))
        settings = {"resolution": resolution, "neighbours": neighbours, "seed": seed, "modularity": modularity}
        with self._stage("persist", "Persisting", unit="community"):
            self._store.save_communities(self._of, settings, communities)
        nodes = len(levels[0]) if levels else 0
        sizes = [sum(community.level == level for community in communities) for level in range(len(levels))]
        of = stages.counted(nodes, "entity", "entities") if self._of == "entities" else stages.counted(nodes, "chunk")
        finest = sizes[0] if sizes else 0
        self._run.progress(message=stages.clustered(nodes=of, finest=finest, levels=len(levels)))
        return {
            "clustered": self._of,
            "nodes": nodes,
            "edges": len(edges),
            "communities": len(communities),
            "communities_per_level": sizes,
            "levels": len(levels),
            "modularity": round(modularity, 6),
            "largest": [_shown(community) for community in _largest(communities)],
            "seconds": self._stages.seconds,
            "database": str(self._store),
        }

    def _edges_of_entities(self) -> list[Edge]:
        with self._stage("load", "Loading", unit="relation"):
            edges = self._store.edges()  # the relations are the graph, so there are no neighbours to compute
        if not edges:
            raise EmptyStoreError(f"{self._store} contains no related entities; run extraction first, or use of=chunks")
        return edges

    def _edges_of_chunks(self, neighbours: int) -> list[Edge]:
        total = self._counts["chunks"]
        with self._stage("load", "Loading", total=total, unit="row") as stage:
            blocks = []
            for block in self._store.chunk_vectors(512):
                blocks.append(block)
                stage.advance(len(block[0]))
        with self._stage("neighbours", "Finding neighbours", total=total, unit="row") as stage:
            return neighbour_graph(blocks, neighbours, stage.advance)

    def _partition(self, edges: list[Edge], resolution: float, seed: int) -> tuple[list[dict[str, int]], float]:
        """Return the community of each node on each level, fine to coarse, and the modularity of the finest."""
        levels: list[dict[str, int]] = []
        modularity = 0.0
        with self._stage("leiden", "Leiden", total=_ROUNDS, unit="round") as stage:
            graph = edges
            while graph and len(levels) < _MAX_LEVELS:
                found: dict[str, int] = {}
                score = 0.0
                for score, found in leiden_rounds(graph, resolution / 2 ** len(levels), seed, _ROUNDS):
                    groups = len(set(found.values()))
                    self._run.progress(message=f"{groups} communities, modularity {score:.3f}")
                    stage.advance(not levels)  # coarser graphs are small and take negligible time
                if levels:
                    above = coarsen(levels[-1], found)
                    # A level that tells nothing: as many communities as before, or one of everything.
                    if not 1 < len(set(above.values())) < len(set(levels[-1].values())):
                        break
                    levels.append(above)
                else:
                    levels.append(found)
                    modularity = score
                if len(set(levels[-1].values())) < 3:
                    break
                graph = community_graph(edges, levels[-1])
        return levels, modularity

    def _label_function(
        self, levels: list[dict[str, int]], advance: Callable[[int], object]
    ) -> Callable[[list[str]], str]:
        if self._of == "entities":
            return name_by_entities(self._store, advance)
        return name_by_words(self._store, sorted(levels[0]) if levels else [], advance)

    def _label_work(self, levels: list[dict[str, int]]) -> int:
        """Return the amount of data that labelling reads over all levels: entities, or texts that are read once more."""
        if self._of == "entities":
            return sum(map(len, levels))
        read = sum(min(size, TEXTS_FOR_LABEL) for level in levels for size in Counter(level.values()).values())
        return read + (len(levels[0]) if levels else 0)

    def _stage(
        self, short: str, name: str, *, unit: str, total: int | None = None
    ) -> AbstractContextManager[LiveStage]:
        return self._stages.stage(short, name, weight=self._shares[name], total=total, unit=unit)


def _shares(of: str, counts: dict[str, int]) -> list[float]:
    """Return the weights of the stages: measured, in microseconds, on 100, 960 and 44,000 chunks."""
    chunks, entities, relations = counts["chunks"], counts["entities"], counts["relations"]
    spent: list[float]
    if of == "entities":
        spent = [4 * relations, 0, 5 * relations, 4 * entities, 2000 + 4 * entities]
    else:
        leiden = min(110, 3 * chunks**0.5)
        spent = [chunks * each for each in (10 + 0.0025 * chunks, 24 + 0.0086 * chunks, leiden, 120, 5)]
    whole = sum(spent) or 1
    return [part / whole for part in spent]


def _largest(communities: list[Community]) -> list[Community]:
    return sorted((c for c in communities if c.level == 0), key=lambda c: (-c.size, c.community_id))[:10]


def _shown(community: Community) -> dict[str, Any]:
    return {"community": community.community_id, "label": community.label, "size": community.size}
