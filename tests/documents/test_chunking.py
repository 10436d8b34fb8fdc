"""Chunks: sizes, positions, ids and headings."""

from __future__ import annotations

import random
from itertools import pairwise

from milepost.documents.chunking import Segment, chunk_segments, chunk_text, split_segments
from milepost.documents.embed.models import count_tokens, load_tokenizer

WORDS = [
    "the",
    "lighthouse",
    "keeper",
    "wrote",
    "a",
    "long",
    "letter",
    "about",
    "storms",
    "ships",
    "and",
    "the",
    "price",
    "of",
    "paraffin",
    "oil",
]


def prose(words: int, seed: int = 1) -> str:
    job_configuration = random.Random(seed)
    out = []
    for number in range(words):
        out.append(job_configuration.choice(WORDS))
        if number % 15 == 14:
            out[-1] += "." if number % 60 != 59 else ".\n\n"
    return " ".join(out)


def test_chunks_are_within_limit_and_have_positions() -> None:
    text = prose(5000)
    chunks = chunk_text(text, tokens=100)
    assert len(chunks) > 40
    for number, chunk in enumerate(chunks):
        assert chunk.ordinal == number
        assert text[chunk.start : chunk.stop] == chunk.text
        assert chunk.tokens == count_tokens([chunk.text])[0] <= 100
    assert all(before.stop <= after.start for before, after in pairwise(chunks))
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())


def test_segments_join_to_the_text_and_keep_pages() -> None:
    pieces = [(prose(300, seed) + "\n\n", seed + 1) for seed in range(20)]
    text = "".join(piece for piece, _ in pieces)
    segments = list(split_segments(pieces, 5000))
    assert "".join(segment.text for segment in segments) == text
    assert [segment.start for segment in segments] == [
        sum(len(before.text) for before in segments[:number]) for number in range(len(segments))
    ]
    starts = [sum(len(piece) for piece, _ in pieces[:page]) for page in range(20)]
    assert [mark for segment in segments for mark in segment.pages] == [
        (start, page + 1) for page, start in enumerate(starts)
    ]
    chunks = list(chunk_segments(segments, document_id="d", format="pdf", tokens=100))
    for chunk in chunks:
        assert chunk.page == max(page + 1 for page, start in enumerate(starts) if start <= chunk.start)
        assert text[chunk.start : chunk.stop] == chunk.text


def test_no_text_is_lost_between_segments() -> None:
    text = prose(4000)
    segments = [Segment(start, text[start : start + 700]) for start in range(0, len(text), 700)]
    done: list[int] = []
    chunks = list(chunk_segments(segments, document_id="d", format="text", tokens=60, advance=done.append))
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
    assert sum(done) == len(text)
    assert max(chunk.tokens for chunk in chunks) <= 60


def test_very_long_word_is_split() -> None:
    chunks = chunk_text("x" * 50_000, tokens=100)
    assert max(len(chunk.text) for chunk in chunks) <= 1000
    assert sum(len(chunk.text) for chunk in chunks) == 50_000


def test_blank_text_has_no_chunks() -> None:
    assert chunk_text(" \n\n ") == []
    assert chunk_text("") == []


def test_edit_at_the_top_keeps_later_chunk_ids() -> None:
    sections = "".join(f"# Section {number}\n\n{prose(120, number)}\n\n" for number in range(10))
    before = chunk_text(sections, document_id="d", format="markdown", tokens=240)
    after = chunk_text("# New\n\nA new section.\n\n" + sections, document_id="d", format="markdown", tokens=240)
    assert len({chunk.chunk_id for chunk in before} - {chunk.chunk_id for chunk in after}) <= 1


def test_repeated_text_gets_distinct_chunk_ids() -> None:
    chunks = chunk_text("# A\n\nsame\n\n# A\n\nsame\n\n", document_id="d", format="markdown", tokens=16)
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)
    other = chunk_text("# A\n\nsame\n\n", document_id="other", format="markdown", tokens=16)
    assert not {chunk.chunk_id for chunk in other} & {chunk.chunk_id for chunk in chunks}


def test_chunks_carry_their_heading() -> None:
    text = f"# Towers\n\n{prose(100)}\n\n## Bengtskar\n\n{prose(400)}\n\n# Ships\n\n{prose(20)}\n"
    headings = [chunk.heading for chunk in chunk_text(text, format="markdown", tokens=120)]
    assert headings[0] == "Towers"
    assert headings.count("Towers > Bengtskar") >= 3
    assert headings[-1] == "Ships"
    assert {chunk.heading for chunk in chunk_text(text, format="text", tokens=120)} == {""}


def test_heading_alone_is_not_a_chunk() -> None:
    for tokens in (64, 120, 240):
        sections = "".join(
            f"## Tower {number}\n\n### Its keeper\n\n{prose(tokens, number)}\n\n" for number in range(20)
        )
        text = f"A Book of Towers\n\n# Towers\n\n{sections}"
        chunks = chunk_text(text, format="markdown", tokens=tokens)
        assert not [
            chunk.text for chunk in chunks if all(line.startswith("#") for line in chunk.text.split("\n") if line)
        ]
        assert chunks[0].text.startswith("A Book of Towers\n\n# Towers\n\n## Tower 0\n\n### Its keeper\n\n")
        assert max(chunk.tokens for chunk in chunks) <= tokens
        assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
        for chunk in chunks:
            assert text[chunk.start : chunk.stop] == chunk.text
        assert {chunk.heading for chunk in chunks} == {f"Towers > Tower {n} > Its keeper" for n in range(20)}


def test_tokenizer_matches_the_model() -> None:
    # Tokens and ids from the model's own tokenizer file.
    tokens = load_tokenizer().encode("Héllo, Bengtskär 1906!").tokens
    assert tokens == ["[CLS]", "hello", ",", "ben", "##gt", "##ska", "##r", "1906", "!", "[SEP]"]
    assert load_tokenizer().encode("the cat sat").ids == [101, 1996, 4937, 2938, 102]


def test_special_tokens_in_text_are_plain_text() -> None:
    assert 102 not in load_tokenizer().encode("[SEP] and [CLS]", add_special_tokens=False).ids
