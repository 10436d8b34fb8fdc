"""The clustering job: correct, deterministic communities, replaced in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milepost.core.errors import JobCancelled
from milepost.documents.clustering import clustering, coarsen, community_graph, leiden_rounds, neighbour_graph, stem
from milepost.documents.errors import EmptyStoreError
from milepost.documents.extraction import extraction
from milepost.documents.ingestion import ingestion
from milepost.documents.retrieval import communities
from tests.documents.watched_run import WatchedRun

GROUPS = (
    ("Ada Lovelace", "Charles Babbage", "Mary Somerville", "Analytical Engine"),
    ("Grace Hopper", "Howard Aiken", "Mark Computer", "Harvard University"),
    ("Alan Turing", "Joan Clarke", "Bletchley Park", "Bombe Machine"),
)


@pytest.fixture
def database(folder: Path, tmp_path: Path) -> str:
    for number, group in enumerate(GROUPS):
        for one in group:
            for two in group:
                if one != two:
                    (folder / f"{number}-{one}-{two}.txt").write_text(
                        f"There {one} met {two} about subject{number} and topic{number}."
                    )
    database = str(tmp_path / "documents.db")
    ingestion(WatchedRun(), [str(folder)], database=database, model="hashing:256")
    extraction(WatchedRun(), database=database, extractor="rules", embed=False)
    return database


def run_job(database: str, watch: Any = None, **options: Any) -> tuple[dict[str, Any], WatchedRun]:
    run = WatchedRun(watch)
    return clustering(run, database=database, **options), run


def test_entities_fall_into_their_groups(database: str) -> None:
    result, run = run_job(database)
    assert (result["nodes"], result["edges"], result["communities_per_level"][0]) == (12, 18, 3)
    finest = communities(database=database, level=0)
    assert {community.members for community in finest} == {
        tuple(sorted(name.casefold() for name in group)) for group in GROUPS
    }
    assert all(len(community.label.split(", ")) == 3 for community in finest)
    assert 0.6 < result["modularity"] < 0.7
    assert run.progress_seen == sorted(run.progress_seen)
    assert len(communities(database=database)) == result["communities"]


def test_similar_chunks_form_a_community(database: str) -> None:
    result, _ = run_job(database, of="chunks", neighbours=5)
    assert result["nodes"] == 36
    finest = communities("chunks", database=database, level=0)
    assert sum(community.size for community in finest) == 36
    assert 3 <= len(finest) <= 9
    run_job(database)
    assert communities("chunks", database=database, level=0) == finest


def test_clustering_is_deterministic(database: str) -> None:
    first = run_job(database)[0]
    before = communities(database=database)
    second = run_job(database)[0]
    assert communities(database=database) == before
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_cancelled_job_keeps_the_previous_clustering(database: str) -> None:
    run_job(database)
    before = communities(database=database)

    def watch(run: WatchedRun) -> None:
        if run.stages and run.stages[-1].name == "Leiden":
            run.cancel()

    with pytest.raises(JobCancelled):
        run_job(database, watch, resolution=5.0)
    assert communities(database=database) == before


def test_empty_store_error_names_the_job_to_run_first(tmp_path: Path) -> None:
    for of in ("entities", "chunks"):
        with pytest.raises(EmptyStoreError, match="run ingestion first"):
            run_job(str(tmp_path / "empty.db"), of=of)
    (tmp_path / "a.txt").write_text("one text")
    ingestion(WatchedRun(), [str(tmp_path / "a.txt")], database=str(tmp_path / "a.db"), model="hashing:64")
    with pytest.raises(EmptyStoreError, match="run extraction first"):
        run_job(str(tmp_path / "a.db"))
    result, _ = run_job(str(tmp_path / "a.db"), of="chunks")
    assert (result["nodes"], result["communities"], result["levels"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("resolution", 0),
        ("resolution", float("nan")),
        ("neighbours", 0),
        ("of", "words"),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_options_out_of_range_are_refused(database: str, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        run_job(database, **{option: value})


def test_knn_graph_equals_exhaustive_search() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(1300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"{number:04}" for number in range(1300)]
    done: list[int] = []
    edges = neighbour_graph([(ids[:600], vectors[:600]), (ids[600:], vectors[600:])], 4, done.append)
    assert done == [512, 512, 276]
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    expected = {tuple(sorted((row, int(near)))) for row in range(1300) for near in np.argsort(-cosines[row])[:4]}
    assert {(int(one), int(two)) for one, two, _ in edges} == expected
    assert edges == sorted(edges)
    assert neighbour_graph([], 3, done.append) == neighbour_graph([(["a"], vectors[:1])], 3, done.append) == []


@pytest.mark.parametrize(
    "forms",
    ["package packages packaging packaged", "install installs installer installation", "library libraries", "process"],
)
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem(form) for form in forms.split()}) == 1


def test_label_has_one_form_of_a_word(folder: Path, tmp_path: Path) -> None:
    """Labels had doubles, such as "apt, packages, package"."""
    forms = ("package", "packages", "packages", "packaging")
    for number in range(40):
        subject = f"zebra {forms[number % 4]} repository" if number % 2 else "ocean liner harbour"
        (folder / f"{number}.txt").write_text(f"{subject} {subject} number{number}")
    database = str(tmp_path / "words.db")
    ingestion(WatchedRun(), [str(folder)], database=database, model="hashing:256")
    run_job(database, of="chunks")
    labels = [community.label for community in communities("chunks", level=0, database=database)]
    assert any("packages" in label for label in labels)
    assert not any("package," in label or "packaging" in label for label in labels)


def test_there_is_no_level_of_one_community(database: str) -> None:
    """The second level of a manual was one community of everything."""
    for of in ("entities", "chunks"):
        for resolution in (0.2, 1.0, 3.0):
            sizes = run_job(database, of=of, resolution=resolution)[0]["communities_per_level"]
            assert all(size > 1 for size in sizes[1:]), (of, resolution, sizes)


def test_levels_of_a_graph() -> None:
    edges = [(f"{group}{one}", f"{group}{two}", 1.0) for group in "abcdefgh" for one in range(4) for two in range(one)]
    edges += [("a0", "b0", 0.5), ("c0", "d0", 0.5)]
    *_, (score, found) = leiden_rounds(edges, 1.0, 1, 10)
    assert len(set(found.values())) == 8
    assert score > 0.8
    between = community_graph(edges, found)
    assert len(between) == 2
    above = coarsen(
        found,
        {str(node): 0 if node in (found["a0"], found["b0"]) else 1 for pair in between for node in map(int, pair[:2])},
    )
    assert above["a0"] == above["b1"] != above["c0"] == above["d1"]
    assert len(set(above.values())) == 6
