"""Page furniture and headings in the text of pages."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Final

from milepost.documents.loaders import without_headings

_AROUND: Final = 8
_REPEATED: Final = 3
_EDGE_LINES: Final = 2
_LINE_CHARACTERS: Final = 200
_DIGITS: Final = re.compile(r"\d+")
_WORDS: Final = re.compile(r"\w+")


class PageFurniture:
    """Drops running heads and page numbers: first and last lines that repeat on the pages around, except for digits.

    The first of each is kept, and so is a line without which the page would be empty.
    """

    def __init__(self) -> None:
        self._pages: deque[tuple[int, list[str]]] = deque()
        self._edges: deque[set[str]] = deque()
        self._counts: Counter[str] = Counter()
        self._kept: set[str] = set()
        self._waiting = 0

    def add(self, number: int, text: str) -> Iterator[tuple[int, str]]:
        """Add a page, and yield the (number, text) of the page whose surroundings are now known."""
        lines = text.split("\n") if text else []
        edges = {_form(line) for line in (*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:])}
        self._pages.append((number, lines))
        self._edges.append(edges)
        self._counts.update(edges)
        if len(self._pages) > _AROUND:
            yield self._take()
        if len(self._edges) > 2 * _AROUND:
            self._counts.subtract(self._edges.popleft())

    def finish(self) -> Iterator[tuple[int, str]]:
        """Yield the pages that are left."""
        while self._pages:
            yield self._take()

    def _take(self) -> tuple[int, str]:
        number, lines = self._pages.popleft()
        first, last = 0, len(lines)
        while first < min(_EDGE_LINES, last) and self._is_furniture(lines[first]):
            first += 1
        while last > max(len(lines) - _EDGE_LINES, first) and self._is_furniture(lines[last - 1]):
            last -= 1
        body = "\n".join(lines[first:last]).strip()
        if not body:
            return number, "\n".join(lines)
        edges = [line for line in (*lines[:first], *lines[last:]) if _form(line) not in self._kept]
        self._kept.update(map(_form, edges))
        kept = set(edges)
        top, end = ([line for line in some if line in kept] for some in (lines[:first], lines[last:]))
        return number, "\n".join((*top, body, *end))

    def _is_furniture(self, line: str) -> bool:
        return self._counts[_form(line)] >= _REPEATED


def _form(line: str) -> str:
    return " ".join(_DIGITS.sub("#", line[:_LINE_CHARACTERS]).split())


def with_headings(text: str, headings: Sequence[tuple[int, str]]) -> str:
    """Return a page with its (level, title) headings as lines: where the title is in the text, else at the top."""
    lines = without_headings(text).split("\n")
    words = [_WORDS.findall(line.casefold()) for line in lines]
    top: list[str] = []
    at = 0
    for level, title in headings:
        heading = "#" * level + " " + title
        place, count = _find(words, _WORDS.findall(title.casefold()), at)
        if count:
            lines[place : place + count] = ["", heading, ""]
            words[place : place + count] = [[], [], []]
            at = place + 3
        else:
            top.append(heading + "\n")
    return "\n".join((*top, *lines)).strip("\n")


def _find(lines: list[list[str]], title: list[str], at: int) -> tuple[int, int]:
    """Return (position, number) of the lines, one or two, that consist of a title and at most its number."""
    for position in range(at, len(lines)):
        for count in (1, 2):
            line = [word for some in lines[position : position + count] for word in some]
            if title and line[-len(title) :] == title and all(map(_is_numbering, line[: -len(title)])):
                return position, count
    return 0, 0


def _is_numbering(word: str) -> bool:
    """Return whether a word can be part of the number of a heading, such as `Chapter 3` or `A`."""
    return word.isdecimal() or len(word) == 1 or word in ("chapter", "appendix", "part", "section")
