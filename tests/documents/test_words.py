"""The words of texts and queries."""

from __future__ import annotations

import pytest

from milepost.documents.words import MAX_PHRASES, MAX_TERMS, is_name, query_terms, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Run dpkg-divert, E_4711!", ["run", "dpkg", "divert", "e", "4711"]),
        ("Bücher, RÉPERTOIRE, Straße", ["bucher", "repertoire", "strasse"]),
        ("ﬁle №5", ["file", "no5"]),
        ("灯台は海 v2版", ["灯台", "台は", "は海", "v2", "版"]),
        ("'&|!():*", []),
        ("x" * 5000, ["x" * 100]),
    ],
)
def test_words_have_no_case_accents_or_punctuation(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_terms_are_words_and_what_is_written_together() -> None:
    assert query_terms("apt-get -y Apt get") == [("apt",), ("get",), ("apt", "get"), ("y",)]
    assert query_terms("10.0.0.1")[-1] == ("10", "0", "0", "1")
    assert len(query_terms(" ".join(map(str, range(1000))))) == MAX_TERMS
    many = query_terms(" ".join(f"a{n}-b{n}" for n in range(20)))
    assert [len(term) > 1 for term in many].count(True) == MAX_PHRASES
    assert ("b19",) in many, "the words of other phrases count alone"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("dpkg-divert --list", True), ("update-alternatives --remove x-window-manager", True), ("灯台", True),
        ("How do I divert?", False), ("海岸の灯台はどこにありますか", False),
    ],
)  # fmt: skip
def test_few_written_words_are_a_name(query: str, expected: bool) -> None:
    assert is_name(query) is expected
