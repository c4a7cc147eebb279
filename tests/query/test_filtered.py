"""Filters over an index of all kinds, with copies, several segments and dead rows, against a plain join."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.core.types import MediaInfo
from mmsearch.query import SearchOptions, retrieve
from mmsearch.store.local import searching
from mmsearch.store.local.catalogue import NewContent, NewSegment, row_owners
from mmsearch.store.local.catalogue.matching import Condition, contents_of_documents, list_documents
from mmsearch.store.local.commit import compact
from tests.support.colours import COLOURS, ColourEncoder

MODALITIES = ("image", "video", "text")
TEXT = "blue yellow"


def fill(index: Index, documents: list[tuple[str, int]], seed: int) -> None:
    """Commits documents, given as (path, number of their content): contents of 1 to 3 segments, of every kind."""
    random = np.random.default_rng(seed)
    with index._directory.writing() as writer, writer.catalogue.transaction():
        space, catalogue = writer.space(), writer.catalogue
        root = catalogue.roots()[0] if catalogue.roots() else catalogue.add_root("/photos", is_relative=False)
        row, ids, appended = space.row_count, {}, [np.zeros((0, space.spec.dim), np.float32)]
        for path, number in documents:
            modality = MODALITIES[number % 3]
            if number not in ids:
                vectors = random.standard_normal((1 + number % 3, space.spec.dim)).astype(np.float32)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                appended.append(vectors)
                segments = [NewSegment(row + place) for place in range(len(vectors))]
                info = MediaInfo(taken_at=f"{2000 + number % 20}-01-01T00:00:00")
                ids[number] = catalogue.add_content(
                    space, NewContent(number.to_bytes(8, "big"), "x", modality, info, segments)
                )
                row += len(segments)
            catalogue.put_document(root.id, path, modality, 1, 1, ids[number])
        writer.vector_file(space).append(np.concatenate(appended), at=space.row_count)
        catalogue.set_row_count(space.id, row)


def remove(index: Index, paths: list[str]) -> None:
    with index._directory.writing() as writer, writer.catalogue.transaction():
        for path in paths:
            writer.catalogue.remove_below(1, path)
        writer.catalogue.drop_unused_contents()


def expected(index: Index, where: Any, kinds: tuple[str, ...]) -> list[tuple[float, str]]:
    """(score, path) of all documents that hold, best first: one join and a product a row."""
    directory = index._directory
    matrix = directory.matrix(directory.space()).astype(np.float32)
    vector = ColourEncoder().encode_texts([TEXT])[0]
    best: dict[str, float] = {}
    for row, path, taken, kind in directory.catalogue.sql.execute(
        """SELECT v.row, d.path, c.taken_at, d.modality FROM vectors v JOIN segments s ON s.id = v.segment_id
           JOIN documents d ON d.content_id = s.content_id JOIN contents c ON c.id = d.content_id"""
    ):
        if kind in kinds and where(path, int(taken[:4])):
            best[path] = max(best.get(path, -2.0), float(matrix[row] @ vector))
    return sorted(((score, path) for path, score in best.items()), reverse=True)


FILTERS: dict[str, Any] = {
    "": lambda path, year: True,
    "path:a/**": lambda path, year: path.startswith("a/"),
    "path:c/*": lambda path, year: path.startswith("c/"),  # folders with all below them
    "folder:deep": lambda path, year: "/deep/" in path,
    "after:2010": lambda path, year: year >= 2010,
    "after:2019 path:b/**": lambda path, year: year >= 2019 and path.startswith("b/"),
    "-path:b/** before:2002": lambda path, year: year < 2002 and not path.startswith("b/"),
    "path:nowhere/**": lambda path, year: False,
}
PATHS = st.builds(
    lambda folder, deep, name: f"{folder}/{'deep/' if deep else ''}{name}",
    st.sampled_from("aaab bbc"), st.booleans(), st.integers(0, 60),
)  # fmt: skip
DOCUMENTS = st.lists(st.tuples(PATHS, st.integers(0, 90)), max_size=60, unique_by=lambda one: one[0])


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(DOCUMENTS, st.lists(PATHS, max_size=15)), min_size=1, max_size=3),
    st.integers(1, 9),
    st.sampled_from([("image", "video"), ("text",), ("video",), MODALITIES]),
    st.fixed_dictionaries(
        {"PROBED": st.integers(1, 9), "LISTED_FIRST": st.integers(0, 30), "PATIENCE_FIRST": st.sampled_from([0, 900]),
         "SIFTED": st.integers(1, 64), "TRIED": st.integers(1, 64), "FIRST": st.integers(1, 40)}
    ),
)  # fmt: skip
def test_any_filter_on_any_index_is_exact(
    tmp_path_factory: pytest.TempPathFactory, commits: list[Any], k: int, kinds: tuple[Any, ...], limits: dict[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("filtered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_owners, "BLOCK", 8)
        for name, value in limits.items():
            patch.setattr(retrieve if name == "FIRST" else searching, name, value)
        with Index.open(folder / "index", create=True, encoder=ColourEncoder()) as index:
            for number, (documents, gone) in enumerate(commits):
                fill(index, documents, number)
                remove(index, gone)
                options = SearchOptions(k=k, modalities=kinds, hubness=0.0, words=0.0)
                for filters, where in FILTERS.items():
                    hits = index.search(f"{TEXT} {filters}", options=options)
                    truth = expected(index, where, kinds)[:k]
                    assert len(hits) == len(truth)
                    assert [hit.score for hit in hits] == pytest.approx([score for score, _ in truth], abs=1e-5)
                    scores = {path: score for score, path in expected(index, where, kinds)}
                    for hit in hits:  # of copies, whichever; but one that the filter allows
                        path = hit.path.removeprefix("/photos/")
                        assert scores[path] == pytest.approx(hit.score, abs=1e-5)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """3,000 documents, of which every 50th lies in ``few``."""
    with Index.open(tmp_path_factory.mktemp("listed") / "index", create=True, encoder=ColourEncoder()) as opened:
        fill(opened, [(f"{'few' if n % 50 == 0 else 'rest'}/{n}", n) for n in range(3000)], 0)
        yield opened


def test_listing_gives_all_or_says_that_it_does_not(index: Index) -> None:
    catalogue = index._directory.catalogue
    few = Condition("d.path >= :low AND d.path < 'few0'", {"low": "few/"})
    every = [(row[0], row[1]) for row in catalogue.sql.execute("SELECT id, content_id FROM documents ORDER BY id")]

    def listed(condition: Condition, **limits: Any) -> list[tuple[int, int]] | None:
        found = list_documents(catalogue, condition, **limits)
        return None if found is None else sorted(zip(found[0].tolist(), found[1].tolist(), strict=True))

    truth = [one for number, one in enumerate(every) if number % 50 == 0]
    assert listed(few) == listed(few, most=60) == listed(few, most=60, patience=0) == truth
    assert listed(few, most=59) is None
    scattered = Condition("d.path LIKE 'few/%'", {})
    assert listed(scattered) == listed(scattered, patience=10**6) == truth
    assert listed(scattered, patience=2_000) is None, "hardly any among those looked at"
    assert listed(Condition("TRUE", {}), patience=0) == every
    assert listed(Condition("c.taken_at < '2001'", {})) == every[::20]
    assert listed(scattered) == truth, "the connection has no limit any more"
    assert index.search("red folder:few", k=99, modality=MODALITIES, words=False) != []
    with pytest.raises(Exception, match="no such column"):
        list_documents(catalogue, Condition("d.missing = 1", {}), patience=10)


def test_contents_are_those_of_the_documents_that_are_there(index: Index) -> None:
    documents, contents = contents_of_documents(index._directory.catalogue, [5, 10**9, 7, 5])
    assert dict(zip(documents.tolist(), contents.tolist(), strict=True)) == {5: 5, 7: 7}
    assert [len(array) for array in contents_of_documents(index._directory.catalogue, [])] == [0, 0]


def test_threads_that_filter_at_once_get_what_each_gets_alone(index: Index) -> None:
    asked = [f"{colour} {filters}" for colour in COLOURS for filters in ("path:few/**", "path:rest/*", "after:2015")]
    with Index.open(index.path, encoder=ColourEncoder()) as fresh:
        answers: dict[str, Any] = {}
        threads = [
            threading.Thread(target=lambda one=one: answers.update({one: fresh.search(one, k=7)})) for one in asked
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {one: index.search(one, k=7) for one in asked}


def test_what_others_commit_meanwhile_is_filtered_too(tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        fill(index, [(f"a/{n}", 3 * n) for n in range(40)], 0)
        assert len(index.search("red path:b/**", k=9, words=False)) == 0
        with Index.open(tmp_path / "index", encoder=ColourEncoder()) as other:
            fill(other, [(f"b/{n}", 3 * (n + 100)) for n in range(5)], 1)
            remove(other, ["a/1"])
        assert {hit.path for hit in index.search("red path:b/**", k=9, words=False)} == {
            f"/photos/b/{n}" for n in range(5)
        }
        assert len(index.search("red path:a/**", k=99, words=False)) == 39
        with index._directory.writing() as writer:
            assert compact(writer) == 1
        assert len(index.search("red path:a/**", k=99, words=False)) == 39
