"""Draw the entity graph as SVG: ``milepost draw graph.svg``.

The layout is force-directed (Fruchterman and Reingold, 1991) from a fixed start, so the same graph gives the same
picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from milepost.documents.errors import EmptyStoreError
from milepost.documents.store import DocumentStore
from milepost.documents.store.records import Entity

ENTITIES: Final = 40
WIDTH: Final = 1280
HEIGHT: Final = 900
_MARGIN: Final = 70
_FOOT: Final = 64
_ROUNDS: Final = 400
_LINES_EACH: Final = 4
_LEGEND: Final = 6
_COLOURS: Final = ("#3b6fb6", "#c8553d", "#2f8f6b", "#8a5fa8", "#b8860b", "#3d8ea3", "#a3476f", "#6b7a2f")
_OTHER: Final = "#8a8f98"


@dataclass(frozen=True, slots=True)
class Graph:
    """The entities shown, the (index, index, chunks) of their relations, and the community of each."""

    entities: list[Entity]
    edges: list[tuple[int, int, float]]
    groups: list[str]


def draw_graph(store: DocumentStore, *, limit: int = ENTITIES) -> str:
    """Return an SVG document of the `limit` most mentioned entities that have relations.

    The area of a dot is the number of chunks that mention the entity, its colour the community, and the width of a line
    the number of chunks that relate two entities. Raises `EmptyStoreError` if there are no relations.
    """
    graph = _graph(store, limit)
    if not graph.edges:
        raise EmptyStoreError(f"{store} contains no related entities; run extraction first")
    places = _separated(_layout(graph), graph)
    return _svg(graph, places)


def _graph(store: DocumentStore, limit: int) -> Graph:
    edges = store.edges()
    known = store.entities(limit=limit * 3)
    together = _largest_part({entity.entity_id for entity in known}, edges)
    first = [entity.entity_id for entity in known if entity.entity_id in together][:limit]
    kept = _largest_part(set(first), edges)
    entities = [entity for entity in known if entity.entity_id in kept]
    place = {entity.entity_id: at for at, entity in enumerate(entities)}
    communities = store.communities("entities", level=0, limit=100_000)
    group_of = {member: community.label for community in communities for member in community.members}
    return Graph(
        entities,
        _strongest([(place[one], place[two], weight) for one, two, weight in edges if one in place and two in place]),
        [group_of.get(entity.entity_id, "") for entity in entities],
    )


def _largest_part(nodes: set[str], edges: Sequence[tuple[str, str, float]]) -> set[str]:
    """Return the largest connected component; among equal ones, the one with the first name."""
    near: dict[str, list[str]] = {}
    for one, two, _ in edges:
        if one in nodes and two in nodes:
            near.setdefault(one, []).append(two)
            near.setdefault(two, []).append(one)
    largest: set[str] = set()
    seen: set[str] = set()
    for start in sorted(near):
        if start in seen:
            continue
        part, frontier = {start}, [start]
        while frontier:
            frontier = list({node for at in frontier for node in near[at]} - part)
            part.update(frontier)
        seen |= part
        largest = part if len(part) > len(largest) else largest
    return largest


def _strongest(edges: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """Return the strongest relations of each entity, because all of them would be unreadable."""
    count: dict[int, int] = {}
    kept = []
    for one, two, weight in sorted(edges, key=lambda edge: (-edge[2], edge[0], edge[1])):
        if min(count.get(one, 0), count.get(two, 0)) < _LINES_EACH:
            kept.append((one, two, weight))
            count[one] = count.get(one, 0) + 1
            count[two] = count.get(two, 0) + 1
    return kept


def _layout(graph: Graph) -> list[tuple[float, float]]:
    """Return positions: related entities close to each other, without overlaps."""
    import numpy as np

    size = len(graph.entities)
    turns = np.arange(size) * (
        math.pi * (3 - math.sqrt(5))
    )  # a sunflower pattern with the most mentioned entity in the middle
    radius = np.sqrt((np.arange(size) + 0.5) / size)
    at = np.stack((radius * np.cos(turns), radius * np.sin(turns)), axis=1)
    ideal = 1.6 / math.sqrt(size)
    pulls = np.zeros((size, size))
    for one, two, weight in graph.edges:
        pulls[one, two] = pulls[two, one] = 1 + math.log(weight)
    for number in range(_ROUNDS):
        apart = at[:, None, :] - at[None, :, :]
        distance = np.maximum(np.sqrt((apart**2).sum(axis=2)), 1e-3)
        push = (apart * (ideal**2 / distance**2)[:, :, None]).sum(axis=1)
        pull = (apart * (pulls * distance / ideal / 3)[:, :, None]).sum(axis=1)
        step = push - pull - at * 0.35
        length = np.maximum(np.sqrt((step**2).sum(axis=1, keepdims=True)), 1e-9)
        at = at + step / length * np.minimum(length, 0.15 * (1 - number / _ROUNDS))
    low, high = at.min(axis=0), at.max(axis=0)
    part = (at - low) / np.maximum(high - low, 1e-9)
    area = (WIDTH - 2 * _MARGIN, HEIGHT - 2 * _MARGIN - _FOOT)
    return [(_MARGIN + float(x) * area[0], _MARGIN + float(y) * area[1]) for x, y in part]


def _separated(places: list[tuple[float, float]], graph: Graph) -> list[tuple[float, float]]:
    """Return positions moved apart until no label overlaps another or a dot."""
    at = [list(place) for place in places]
    boxes = [(_label_width(e.name, _font(e)) / 2 + 5, _radius(e) + _font(e) * 0.75 + 3) for e in graph.entities]
    for _ in range(300):
        moved = False
        for one in range(len(at)):
            for two in range(one):
                across = boxes[one][0] + boxes[two][0] - abs(at[one][0] - at[two][0])
                down = boxes[one][1] + boxes[two][1] - abs(at[one][1] - at[two][1])
                if across > 0 and down > 0:
                    axis, gap = (1, down) if down < across else (0, across)
                    way = 1 if at[one][axis] >= at[two][axis] else -1
                    at[one][axis] += way * (gap / 2 + 0.5)
                    at[two][axis] -= way * (gap / 2 + 0.5)
                    moved = True
        for box, spot in zip(boxes, at, strict=True):
            spot[0] = min(max(spot[0], box[0] + 8), WIDTH - box[0] - 8)
            spot[1] = min(max(spot[1], box[1] + 40), HEIGHT - _FOOT - box[1])
        if not moved:
            break
    return [(x, y) for x, y in at]


def _svg(graph: Graph, places: Sequence[tuple[float, float]]) -> str:
    colours = _colours(graph)
    heaviest = max(weight for _, _, weight in graph.edges)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" role="img">',
        "<title>Entities and their relations</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="24" y="30" font-size="15" fill="#30343b">{_heading(graph)}</text>',
        '<g stroke="#9aa3af" stroke-linecap="round">',
    ]
    for one, two, weight in graph.edges:
        (x1, y1), (x2, y2) = places[one], places[two]
        tooltip = f"{graph.entities[one].name} and {graph.entities[two].name}: {weight:.0f} chunks"
        out.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="'
            f'{0.8 + 3.2 * weight / heaviest:.1f}" stroke-opacity="0.55"><title>{escape(tooltip)}</title></line>'
        )
    out.append("</g>")
    for entity, group, (x, y) in zip(graph.entities, graph.groups, places, strict=True):
        tooltip = f"{entity.name} ({entity.label}): {entity.mentions} mentions in {entity.chunks} chunks"
        below = y + _radius(entity) + _font(entity)
        out.append(
            f'<g><title>{escape(tooltip)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{_radius(entity):.1f}" '
            f'fill={quoteattr(colours.get(group, _OTHER))} stroke="#ffffff" stroke-width="1.5"/>'
            f'<text x="{x:.1f}" y="{below:.1f}" font-size="{_font(entity):.0f}" text-anchor="middle" fill="#1d2026" '
            f'stroke="#ffffff" stroke-width="3.5" paint-order="stroke">{escape(entity.name)}</text></g>'
        )
    out += _legend(colours)
    return "\n".join([*out, "</svg>", ""])


def _heading(graph: Graph) -> str:
    return (
        f"The {len(graph.entities)} most mentioned related entities: a dot's area is the chunks that mention it, "
        "a line's width the chunks that relate two"
    )


def _legend(colours: dict[str, str]) -> list[str]:
    out = []
    for at, (group, colour) in enumerate(list(colours.items())[:_LEGEND]):
        x, y = 24 + (at % 3) * (WIDTH - 48) / 3, HEIGHT - 34 + (at // 3) * 20
        label = group if len(group) <= 52 else group[:51] + "…"
        out.append(f'<circle cx="{x + 6:.0f}" cy="{y - 4:.0f}" r="6" fill={quoteattr(colour)}/>')
        out.append(f'<text x="{x + 18:.0f}" y="{y:.0f}" font-size="12" fill="#30343b">{escape(label)}</text>')
    return out


def _colours(graph: Graph) -> dict[str, str]:
    """Return a colour for each of the most frequent communities."""
    count: dict[str, int] = {}
    for group in graph.groups:
        if group:
            count[group] = count.get(group, 0) + 1
    order = sorted(count, key=lambda group: (-count[group], group))
    return dict(zip(order, _COLOURS, strict=False))


def _radius(entity: Entity) -> float:
    return min(26.0, 4 + 2.2 * math.sqrt(entity.chunks))


def _font(entity: Entity) -> float:
    return min(18.0, 11 + math.sqrt(entity.chunks) * 0.8)


def _label_width(text: str, font: float) -> float:
    return len(text) * font * 0.56
