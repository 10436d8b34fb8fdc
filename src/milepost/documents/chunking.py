"""Split text into chunks of a maximum number of tokens, with their position, heading and page."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from milepost.documents.embed.models import count_tokens, load_tokenizer
from milepost.documents.file_types import Format

CHUNK_TOKENS: Final = 240
MIN_CHUNK_TOKENS: Final = 16
MAX_CHUNK_TOKENS: Final = 8192
SEGMENT_CHARACTERS: Final = 64 * 1024
CHARACTERS_PER_TOKEN: Final = 10
CHUNKER_VERSION: Final = 3
_MIN_UNBROKEN: Final = 8 * 1024
_WITHOUT_SPACES: Final = re.compile(r"\S+")
_MIN_TOKENS: Final = 24
_MIN_CHARACTERS: Final = 200
_HEADING: Final = re.compile(r"^(#{1,6}) +(\S.*)$", re.M)
_AT_HEAD: Final = re.compile(r"(?:#{1,6} +\S.*(?:\n\s*|\Z))*")
_INDENTED_MARK: Final = re.compile(r"^([ \t]+)#", re.M)
_WITHOUT_HEADINGS: Final = frozenset({"text", "csv", "json"})
_HEADING_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a document's text: its start (in characters), and the (offset, page) pairs of page starts in it."""

    start: int
    text: str
    pages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document that is embedded and found as a unit.

    `start` and `stop` are character offsets in the document's text, `tokens` counts word pieces, `heading` is the path
    of headings above it, and `page` counts from 1.
    """

    chunk_id: str
    ordinal: int
    start: int
    stop: int
    text: str
    tokens: int
    heading: str = ""
    page: int | None = None


class _Part(NamedTuple):
    """A part of a text: where it starts, and where its main content starts."""

    start: int
    text: str
    place: int


def split_segments(pieces: Iterable[tuple[str, int | None]], characters: int = SEGMENT_CHARACTERS) -> Iterator[Segment]:
    """Join (text, page) pieces into segments of about `characters`, split at line ends where possible."""
    buffer: list[str] = []
    pages: list[tuple[int, int]] = []
    start = size = 0
    page_before: int | None = None
    for text, page in pieces:
        if page is not None and page != page_before:
            pages.append((start + size, page))
            page_before = page
        buffer.append(text)
        size += len(text)
        while size >= characters:
            whole = "".join(buffer)
            cut = whole.rfind("\n", 0, characters) + 1 or characters
            end = start + cut
            yield Segment(start, whole[:cut], tuple(mark for mark in pages if mark[0] < end))
            buffer, start, size = [whole[cut:]], end, size - cut
            pages = [mark for mark in pages if mark[0] >= end]
    if size:
        yield Segment(start, "".join(buffer), tuple(pages))


def chunk_segments(
    segments: Iterable[Segment],
    *,
    document_id: str,
    format: Format,
    tokens: int = CHUNK_TOKENS,
    advance: Callable[[int], object] | None = None,
) -> Iterator[Chunk]:
    """Yield the chunks of a document in order, each of at most `tokens` word pieces.

    The last chunk of a segment is cut again together with the next segment, so cuts depend little on where segments
    end. `advance` is called with the number of characters of each finished segment.
    """
    cut = _splitter(format not in _WITHOUT_HEADINGS, tokens)
    naming = _ChunkNamer(document_id, format)
    rest = ""
    for segment in segments:
        naming.pages.extend(segment.pages)
        text = rest + segment.text
        offset = segment.start - len(rest)
        parts = cut(text)
        kept = parts.pop().start if parts else len(text)
        while kept and text[kept - 1] in " \t":  # code stays indented
            kept -= 1
        yield from naming.name(text, offset, parts, upto=kept)
        rest = text[kept:]
        offset += kept
        if advance is not None:
            advance(len(segment.text))
    if rest.strip():
        yield from naming.name(rest, offset, cut(rest), upto=len(rest))


def chunk_text(text: str, *, document_id: str = "", format: Format = "text", tokens: int = CHUNK_TOKENS) -> list[Chunk]:
    """Split one text into chunks; see `chunk_segments`."""
    return list(chunk_segments(split_segments([(text, None)]), document_id=document_id, format=format, tokens=tokens))


class _ChunkNamer:
    """Assigns ids, headings and pages to chunks, keeping state between segments."""

    def __init__(self, document_id: str, format: Format) -> None:
        self.pages: list[tuple[int, int]] = []
        self._document_id = document_id
        self._with_headings = format not in _WITHOUT_HEADINGS
        self._path: list[tuple[int, str]] = []
        self._occurrences: Counter[bytes] = Counter()
        self._ordinal = 0

    def name(self, text: str, offset: int, parts: list[_Part], *, upto: int) -> Iterator[Chunk]:
        headings = list(_HEADING.finditer(text, 0, upto)) if self._with_headings else []
        counts = count_tokens([part.text for part in parts])
        for (start, part, place), tokens in zip(parts, counts, strict=True):
            if text[place - 1 : place] in ("", "\n") and (at_head := _AT_HEAD.match(text, place)):
                place = at_head.end()
            while headings and headings[0].start() <= place:
                self._enter(headings.pop(0))
            yield Chunk(
                chunk_id=self._chunk_id(part),
                ordinal=self._ordinal,
                start=offset + start,
                stop=offset + start + len(part),
                text=part,
                tokens=tokens,
                heading=" > ".join(title for _, title in self._path)[-_HEADING_CHARACTERS:],
                page=self._page(offset + start),
            )
            self._ordinal += 1
        for heading in headings:
            self._enter(heading)

    def _enter(self, heading: re.Match[str]) -> None:
        level = len(heading[1])
        self._path = [(above, title) for above, title in self._path if above < level]
        self._path.append((level, heading[2].strip()))

    def _chunk_id(self, part: str) -> str:
        """Return an id made from the text, not the position, so that an edit at the top keeps the ids of later chunks."""
        digest = hashlib.sha256(part.encode()).digest()
        occurrence = self._occurrences[digest]
        self._occurrences[digest] += 1
        return hashlib.sha256(f"{self._document_id}\0{occurrence}\0".encode() + digest).hexdigest()[:32]

    def _page(self, offset: int) -> int | None:
        index = bisect_right(self.pages, offset, key=lambda mark: mark[0])
        return self.pages[index - 1][1] if index else None


def _stretches(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, whether it is unbroken) of the stretches of a text.

    An unbroken stretch has no space for thousands of characters. The splitter would take seconds to find no place in it.
    """
    start = 0
    for run in _WITHOUT_SPACES.finditer(text):
        if run.end() - run.start() >= _MIN_UNBROKEN:
            if run.start() > start:
                yield start, run.start(), False
            yield run.start(), run.end(), True
            start = run.end()
    if start < len(text):
        yield start, len(text), False


def _halves(stretch: str, tokens: int, longest: int) -> list[tuple[int, str]]:
    """Cut an unbroken stretch into pieces of equal length, halved until each has at most `tokens` word pieces."""
    pieces = [(start, stretch[start : start + longest]) for start in range(0, len(stretch), longest)]
    found: list[tuple[int, str]] = []
    while pieces:
        counts = count_tokens([piece for _, piece in pieces])
        halved: list[tuple[int, str]] = []
        for (start, piece), count in zip(pieces, counts, strict=True):
            if count <= tokens or len(piece) == 1:
                found.append((start, piece))
            else:
                half = (len(piece) + 1) // 2
                halved += [(start, piece[:half]), (start + half, piece[half:])]
        pieces = halved
    return sorted(found)


@lru_cache(maxsize=8)
def _splitter(with_headings: bool, tokens: int) -> Callable[[str], list[_Part]]:
    """Return a function that splits a text.

    A part of few tokens can be very long (a word of ten thousand letters is one unknown token), so parts are also
    limited in characters.
    """
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    kind = MarkdownSplitter if with_headings else TextSplitter
    splitter = kind.from_huggingface_tokenizer(load_tokenizer(), tokens)
    sentences = TextSplitter.from_huggingface_tokenizer(load_tokenizer(), tokens)
    longest = tokens * CHARACTERS_PER_TOKEN
    by_characters = TextSplitter(longest)

    def cut(text: str) -> list[_Part]:
        parts: list[_Part] = []
        for first, last, is_unbroken in _stretches(text):
            stretch = text[first:last]
            if is_unbroken:
                parts += [
                    _Part(first + start, piece, first + start) for start, piece in _halves(stretch, tokens, longest)
                ]
                continue
            # The splitter takes an indented # in a list for a heading.
            masked = _INDENTED_MARK.sub(r"\1%", stretch) if with_headings else stretch
            for start, piece in splitter.chunk_indices(masked):
                offset = first + start
                part = text[offset : offset + len(piece)]
                if len(part) <= longest:
                    parts.append(_Part(offset, part, offset))
                else:
                    inner = by_characters.chunk_indices(part)
                    parts += [_Part(offset + start, piece, offset + start) for start, piece in inner]
        return list(joined(text, parts))

    def joined(text: str, parts: list[_Part]) -> Iterator[_Part]:
        """Join a part with little content, such as a heading alone, to the part after it.

        Such a chunk would match every question about its subject and answer none. If both are too long together, the
        chunk gets as many sentences as fit.
        """
        least = min(_MIN_TOKENS, tokens // 4)
        short: _Part | None = None
        for part in parts:
            if short is not None:
                whole = text[short.start : part.start + len(part.text)]
                part = _Part(short.start, whole, part.start)
                short = None
                if count_tokens([whole])[0] > tokens or len(whole) > longest:
                    first = sentences.chunks(whole.replace("\n", " "))[
                        0
                    ]  # at a line end it would be cut at the same place again
                    yield _Part(part.start, whole[: len(first)], part.place)
                    for start, piece in splitter.chunk_indices(whole[len(first) :]):
                        start += part.start + len(first)
                        yield _Part(start, piece, start)
                    continue
            if len(part.text) <= _MIN_CHARACTERS and count_tokens([part.text])[0] < least:
                short = part
            else:
                yield part
        if short is not None:
            yield short

    return cut
