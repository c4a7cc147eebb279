"""What any `Store` must do, tested against the memory store as the oracle: subclass `Contract` with `make`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.core.errors import UsageError, VectorError
from mmsearch.core.types import EncoderSpec, MediaInfo, Modality
from mmsearch.filters import And, Compare, Contains, Glob, Not, OneOf, Phrase, Where
from mmsearch.store.base import Columns, NewDocument, NewSegment, Store
from tests.support.memory_store import MemoryStore

SPEC = EncoderSpec("contract", "c" * 64, 6, "none")
FILTERS: dict[str, Where | None] = {
    "none": None,
    "images": OneOf("modality", ("image",)),
    "a third": Glob(("a", "**")),
    "few": Glob(("b", "*7.jpg")),
    "one": Glob(("b", "17.jpg")),
    "nothing": Glob(("nowhere", "**")),
    "newer": Compare("taken_at", ">=", "2010"),
    "not a, pictures": And((Not(Glob(("a", "**"))), OneOf("modality", ("image", "video")))),
    "camera": Contains("camera", "fuji"),
    "phrase": Phrase("blue harbour"),
    "no phrase": And((Not(Phrase("harbour")), Not(Phrase("lake")))),
}


def documents(count: int, seed: int = 0) -> tuple[list[NewDocument], np.ndarray]:
    """Documents of all kinds, of one to four segments, every tenth a copy of another one; and their vectors."""
    random = np.random.default_rng(seed)
    made, rows, known = [], [], {}
    for number in range(count):
        kinds: list[Modality] = ["image", "image", "image", "video", "text"]
        source = number - 10 if number % 10 == 9 and number > 20 else number
        kind = kinds[source % 5]
        segments = [NewSegment()]
        if kind == "video":
            segments = [NewSegment(2.0 * i, 2.0 * i + 2) for i in range(1 + source % 4)]
        elif kind == "text":
            segments = [NewSegment(text=f"passage {i} on the {'blue' if i else 'old'} harbour") for i in range(2)]
        if source not in known:
            vectors = random.standard_normal((len(segments), SPEC.dim))
            known[source] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
        taken = None if source % 3 else f"{2000 + source % 20}-05-06T07:08:09"
        camera = "Fujifilm X" if source % 4 == 0 else None
        info = MediaInfo(40, 30, taken_at=taken, camera=camera)
        made.append(
            NewDocument(
                f"{'abc'[number % 3]}/{number}.jpg", kind, source.to_bytes(4, "big"), segments, "/photos", info,
                1000 + number, 10**18 + number * 10**12, "at the lake" if number % 7 == 0 else None,
            )
        )  # fmt: skip
        rows.append(known[source])
    return made, np.concatenate(rows).astype(np.float32)


def queries(count: int = 5) -> np.ndarray:
    vectors = np.random.default_rng(9).standard_normal((count, SPEC.dim)).astype(np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def names(store: Store, ids: Any, where: Where | None = None) -> list[tuple[str, int]]:
    """Ids as (path, number of the segment), one for each document, sorted: what two stores can be compared by."""
    return sorted((one.path, one.ordinal) for one in store.fetch(list(ids), where))


class Contract:
    """One method for each promise."""

    def make(self, folder: Path) -> Store:
        """An empty store for `SPEC`."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return self.make(tmp_path)

    @pytest.fixture
    def filled(self, store: Store) -> tuple[Store, MemoryStore]:
        """The store and the oracle, with the same 200 documents in two batches."""
        oracle = MemoryStore(SPEC)
        made, vectors = documents(200)
        half = sum(len(one.segments) for one in made[:100])
        for each in (store, oracle):
            each.upsert(made[:100], vectors[:half])
            each.upsert(made[100:], vectors[half:])
        return store, oracle

    def test_an_empty_store(self, store: Store) -> None:
        [near] = store.search(queries(1), 3)
        assert len(near) == 0 and near.is_all and store.count() == 0 and list(store.scan()) == []
        assert store.spec == SPEC and store.modalities == frozenset() and store.size == 0
        assert [one.ids.tolist() for one in store.search(queries(2), 3, FILTERS["one"])] == [[], []]
        assert (
            len(store.sample(9, ["image"])) == 0
            and list(store.blocks()) == []
            and store.find("/photos/a/0.jpg") is None
        )

    @pytest.mark.parametrize("name", FILTERS)
    @pytest.mark.parametrize("k", [1, 7, 60, 1000])
    def test_k_segments_come_whenever_k_satisfy(self, filled: tuple[Store, MemoryStore], name: str, k: int) -> None:
        store, oracle = filled
        where = FILTERS[name]
        for vector, near, truth in zip(
            queries(), store.search(queries(), k, where), oracle.search(queries(), 10**6, where), strict=True
        ):
            assert min(k, len(truth)) <= len(near) and len(set(near.ids.tolist())) == len(near)
            assert not near.is_all or len(near) == len(truth)
            np.testing.assert_allclose(near.scores[:k], truth.scores[:k], atol=2e-3)
            np.testing.assert_allclose(store.vectors(near.ids) @ vector, near.scores, atol=2e-3)
            holding = {place for place, _ in names(oracle, truth.ids, where)}
            assert {place for place, _ in names(store, near.ids, where)} <= holding
            for id_, segments in near.segments.items():
                assert {one.id for one in segments} == {id_} and {one.path for one in segments} <= holding

    @pytest.mark.parametrize("name", FILTERS)
    def test_everything_that_satisfies_can_be_had(self, filled: tuple[Store, MemoryStore], name: str) -> None:
        store, oracle = filled
        where = FILTERS[name]
        [near], [truth] = store.search(queries(1), 10**6, where), oracle.search(queries(1), 10**6, where)
        assert near.is_all and names(store, near.ids, where) == names(oracle, truth.ids, where)
        assert store.count(where) == oracle.count(where)
        assert [one.path for one in store.newest(where, 500)] == [one.path for one in oracle.newest(where, 500)]
        dates = [one.date or "" for one in store.newest(where, 500)]
        assert dates == sorted(dates, reverse=True)
        assert [one.path for one in store.newest(where, 5, 3)] == [one.path for one in store.newest(where, 8)[3:]]
        if where is not None:
            chosen = [one for one in store.scan() if one.size % 2]
            true = {one.path for one in oracle.scan() if one.size % 2 and oracle.matching([one.id], where)}
            held = store.matching([one.id for one in chosen], where)
            assert {one.path for one in chosen if one.id in held} == true

    def test_the_pool_is_looked_at_in_the_order_that_is_asked_for(self, filled: tuple[Store, MemoryStore]) -> None:
        """With the order turned round, the last of the pool come, and never what must not."""
        store, _ = filled
        where = FILTERS["a third"]
        [everything] = store.search(queries(1), 10**6, where)
        banned = set(everything.ids[::2].tolist())
        seen: list[int] = []

        def adjust(ids: Any, scores: Any) -> Any:
            seen.append(len(ids))
            return np.where(np.isin(ids, list(banned)), -np.inf, -scores)

        [near] = store.search(queries(1), 4, where, pool=500, adjust=adjust)
        assert not banned & set(near.ids.tolist()) and len(near) >= 4
        assert everything.ids[1::2][-1] in near.ids, "the worst is the best now"
        assert seen and store.search(queries(1), 4, None, pool=9, adjust=adjust)[0].ids.tolist() == (
            store.search(queries(1), 9)[0].ids.tolist()
        )

    def test_fetch_gives_a_segment_once_for_each_of_its_documents(self, filled: tuple[Store, MemoryStore]) -> None:
        store, oracle = filled
        by_path = {one.path: one for one in store.scan()}
        copy, original = by_path["/photos/c/29.jpg"], by_path["/photos/b/19.jpg"]
        _, ids = store.segments([copy.id])
        owners = {(one.id, one.path) for one in (copy, original)}
        assert {(one.document, one.path) for one in store.fetch(ids.tolist())} == owners
        assert {one.path for one in store.fetch(ids.tolist(), Glob(("b", "**")))} == {"/photos/b/19.jpg"}
        assert store.fetch([]) == []
        every = {
            (one.path, one.ordinal): one[3:8] for one in store.fetch(store.sample(10**6, ["video", "text"]).tolist())
        }
        truth = oracle.fetch(oracle.sample(10**6, ["video", "text"]).tolist())
        assert every == {(one.path, one.ordinal): one[3:8] for one in truth}

    def test_segments_of_documents(self, filled: tuple[Store, MemoryStore]) -> None:
        store, oracle = filled
        for kinds in (None, ["video"], ["image", "text"]):
            pairs = []
            for each in (store, oracle):
                wanted = [one.id for one in each.scan() if one.size % 3 == 0]
                holders, ids = each.segments(wanted, kinds)
                paths = {one.id: one.path for one in each.scan()}
                ordinals = {(one.document, one.id): one.ordinal for one in each.fetch(np.unique(ids).tolist())}
                pairs.append(
                    sorted((paths[d], ordinals[d, i]) for d, i in zip(holders.tolist(), ids.tolist(), strict=True))
                )
            assert pairs[0] == pairs[1] and len(pairs[0])
        assert [len(array) for array in store.segments([])] == [0, 0]

    def test_samples_are_always_the_same_and_of_the_kinds_wanted(self, filled: tuple[Store, MemoryStore]) -> None:
        store, _ = filled
        few, every = store.sample(10, ["image"]), store.sample(10**6, ["image"])
        assert len(set(few.tolist())) == 10 and set(few.tolist()) < set(every.tolist())
        assert few.tolist() == store.sample(10, ["image"]).tolist() != store.sample(10, ["image"], 1).tolist()
        assert {one.modality for one in store.fetch(every.tolist())} == {"image"}

    def test_blocks_are_all_segments_in_the_order_of_their_arrival(self, filled: tuple[Store, MemoryStore]) -> None:
        store, oracle = filled
        for start in (0, 1, 100, store.size):
            mine, true = (list(each.blocks(start)) for each in (store, oracle))
            if start == store.size:
                assert mine == []
                continue
            for place in (1, 2):
                ours, theirs = (np.concatenate([block[place] for block in blocks]) for blocks in (mine, true))
                np.testing.assert_array_equal(ours, theirs)
            ids = np.concatenate([block.ids for block in mine])
            np.testing.assert_array_equal(store.vectors(ids), np.concatenate([block.vectors for block in mine]))

    def test_what_is_said_in_a_video_is_a_passage_for_calibration(self, store: Store) -> None:
        segments = [NewSegment(0.0, 2.0), NewSegment(0.0, 2.0, "good morning", "speech"), NewSegment(2.0, 4.0)]
        store.upsert([NewDocument("film.mp4", "video", b"film", segments, "/photos")], queries(3))
        blocks = list(store.blocks())
        ids, is_text = (np.concatenate([block[place] for block in blocks]) for place in (0, 2))
        kinds = {one.id: one.modality for one in store.fetch(ids.tolist())}
        assert {kinds[id_] for id_ in ids[is_text].tolist()} == {"speech"}
        assert {kinds[id_] for id_ in ids[~is_text].tolist()} == {"video"}

    def test_documents_are_found_by_their_paths(self, filled: tuple[Store, MemoryStore]) -> None:
        store, oracle = filled
        for prefix in ("", "/photos", "/photos/a", "/photos/a/", "/photos/a/3.jpg", "/pho"):
            mine, true = ({one[1:] for one in each.scan(prefix)} for each in (store, oracle))
            assert mine == true
        ids = [one.id for one in store.scan()]
        assert ids == sorted(ids)
        document = store.find("/photos/a/3.jpg")
        assert document is not None and document.name == "a/3.jpg" and store.find("/photos/a") is None
        assert store.looks([document.id])[document.id] == (40, 30, "2003-05-06T07:08:09")
        assert store.written(document.id)["path"] == "a/3.jpg"

    @pytest.mark.parametrize("name", FILTERS)
    def test_documents_are_listed_in_parts(self, filled: tuple[Store, MemoryStore], name: str) -> None:
        """By date and by path, with what is known of each; and how they spread over months and folders."""
        store, oracle = filled
        where, (undated, vectors) = FILTERS[name], documents(201)
        for each in filled:
            each.upsert([replace(undated[-1], info=MediaInfo(), mtime_ns=0)], vectors[-1:])
            each.upsert([replace(undated[0], root="/archive"), replace(undated[5], root="/zoo")], vectors[[0, 0]])
        shown = lambda one: replace(one, id=0)  # noqa: E731
        for order in ("newest", "path"):
            mine, true = ([*map(shown, each.listed(where, order, 500))] for each in filled)  # type: ignore[arg-type]
            assert mine == true and len(mine) == oracle.count(where)
            parts = [one for start in range(0, 210, 7) for one in store.listed(where, order, 7, start)]  # type: ignore[arg-type]
            assert [*map(shown, parts)] == mine and store.listed(where, order, 0) == []  # type: ignore[arg-type]
        assert store.months(where) == oracle.months(where) and store.folders(where) == oracle.folders(where)
        assert sum(count for _, count in store.months(where)) == store.count(where)
        ids = [one.id for one in store.listed(where, "path", 9)]
        assert [one.id for one in store.describe(ids).values()] == ids or sorted(store.describe(ids)) == sorted(ids)
        assert store.describe([*ids, 10**9]) == store.describe(ids) and store.describe([]) == {}

    @pytest.mark.parametrize("name", ["none", "a third", "one", "nothing", "phrase"])
    def test_what_is_exported_makes_the_same_store(self, filled: tuple[Store, MemoryStore], name: str) -> None:
        store, oracle = filled
        where, copy = FILTERS[name], MemoryStore(SPEC)
        for part in store.export(where):
            np.testing.assert_array_equal(store.vectors(part.ids), part.vectors)
            copy.upsert(part.documents, part.vectors)
        expected = {(one.path, one.root): one for id_, one in oracle.documents.items() if oracle.satisfies(id_, where)}
        for one in copy.documents.values():
            same = expected.pop((one.path, one.root))
            assert replace(one, segments=()) == replace(same, segments=()) and [*one.segments] == [*same.segments]
        assert not expected
        [near], [truth] = copy.search(queries(1), 10**6), oracle.search(queries(1), 10**6, where)
        assert names(copy, near.ids) == names(oracle, truth.ids, where)
        np.testing.assert_array_equal(near.scores, truth.scores)

    def test_words_are_found_where_they_are_written(self, filled: tuple[Store, MemoryStore]) -> None:
        store, oracle = filled
        terms = [["lake"], ["harbor", "harbour"], ["17"], ["zeppelin"], ["passage"]]
        for limit in (1000, 30, 1):
            mine, true = store.words(terms, limit), oracle.words(terms, limit)
            for one, other in zip(mine, true, strict=True):
                assert one.count == other.count and len(one.written) == len(other.written) and not one.read
                paths = [
                    {d.path for d in each.scan() if d.id in set(w.written)}
                    for each, w in ((store, one), (oracle, other))
                ]
                assert paths[0] == paths[1]

    def test_words_are_found_inside_of_runs_and_names(self, filled: tuple[Store, MemoryStore]) -> None:
        """Scripts without spaces, parts of names where nobody has the word itself, and any way to write a word."""
        store, oracle = filled
        names_ = ["a/猫の写真.jpg", "a/2023-東京タワー.jpg", "b/DSC02043.jpg", "b/IMG_2044-edit.jpg", "b/20180312.jpg",
                  "c/annasbirthday.jpg", "c/Strasse.jpg", "c/가족사진을.jpg", "c/2018/x.jpg"]  # fmt: skip
        made = [
            NewDocument(name, "image", b"w%d" % n, root="/photos", caption="在北京的 cafe\u0301" if n == 3 else None)
            for n, name in enumerate(names_)
        ]
        vectors = np.eye(SPEC.dim, dtype=np.float32)[np.arange(len(made)) % SPEC.dim]
        for each in filled:
            each.upsert(made, vectors)
        terms = [["猫"], ["写真"], ["真猫"], ["東京"], ["2043"], ["2044"], ["2018"], ["0312"], ["birthday"], ["birth"],
                 ["nnas"], ["straße"], ["사진"], ["北京"], ["Café"], ["ｃａｆｅ"], ["44-edit"], ["!"]]  # fmt: skip
        held = []
        for one, other in zip(store.words(terms, 9), oracle.words(terms, 9), strict=True):
            paths = [
                {d.name for d in each.scan() if d.id in set(w.written)} for each, w in ((store, one), (oracle, other))
            ]
            assert paths[0] == paths[1] and one.count == len(paths[0])
            held.append([names_.index(path) for path in sorted(paths[0], key=names_.index)])
        assert held == [[0], [0], [], [1], [2], [3], [8], [4], [5], [5], [], [6], [7], [3], [3], [3], [3], []]
        phrases = {"写真": [0], "IMG_20": [3], "2018": [4, 8], "birthday": [], "STRASSE": [6], "의": [], "사진을": [7]}
        for phrase, numbers in phrases.items():
            for each in filled:
                there = [one.path for one in each.newest(Phrase(phrase), 99)]
                assert sorted(there) == sorted(f"/photos/{names_[n]}" for n in numbers), phrase

    def test_changes_change_the_version_and_what_is_found(self, filled: tuple[Store, MemoryStore]) -> None:
        store, oracle = filled
        versions = [store.version]
        for each in filled:
            assert each.delete(FILTERS["newer"]) == 200 - each.count() > 0
        versions.append(store.version)
        more, vectors = documents(230)
        start = sum(len(one.segments) for one in more[:200])
        for each in filled:
            each.upsert(more[200:], vectors[start:])
        versions.append(store.version)
        changed, moved = documents(3, seed=5)
        for each in filled:
            each.upsert(changed, moved[: sum(len(one.segments) for one in changed)])
        versions.append(store.version)
        assert len(set(versions)) == 4
        for name in ("none", "a third", "phrase"):
            [near], [truth] = (each.search(queries(1), 10**6, FILTERS[name]) for each in filled)
            assert names(store, near.ids, FILTERS[name]) == names(oracle, truth.ids, FILTERS[name])
            assert store.count(FILTERS[name]) == oracle.count(FILTERS[name])
        assert store.metadata["documents"] == oracle.metadata["documents"]
        before = oracle.count()
        assert store.delete(None) == before and store.count() == 0
        assert len(store.search(queries(1), 5)[0]) == 0

    def test_all_of_a_batch_is_stored_or_nothing(self, filled: tuple[Store, MemoryStore]) -> None:
        store, _ = filled
        version, [new, *_] = store.version, documents(1, seed=3)[0]
        for wrong in (np.ones((2, SPEC.dim)), np.ones((1, 3)), np.full((1, SPEC.dim), np.nan)):
            with pytest.raises(VectorError):
                store.upsert([new], wrong.astype(np.float32))
        assert store.version == version and store.count() == 200

    def test_a_store_keeps_what_calibration_has_measured(self, filled: tuple[Store, MemoryStore]) -> None:
        store, _ = filled
        assert store.calibration()[1] == 0
        ids = np.concatenate([block.ids for block in store.blocks()])
        np.testing.assert_array_equal(store.columns(ids).hubness, np.zeros(len(ids)))
        numbers = np.arange(len(ids), dtype=np.float32)
        is_text = numbers % 2 == 0
        store.keep_calibration({"x": np.arange(3)}, Columns(numbers[:50], is_text[:50]), 0)
        assert store.calibration()[1] == 50
        np.testing.assert_array_equal(store.columns(ids[[60, 7]]).hubness, [0, 7])
        store.keep_calibration({"x": np.arange(4)}, Columns(numbers[50:], is_text[50:]), 50)
        values, covered = store.calibration()
        assert covered == len(ids) and values["x"].tolist() == [0, 1, 2, 3]
        columns = store.columns(ids[[9, 60]])
        assert columns.hubness.tolist() == [9, 60]
        assert columns.is_text.tolist() == [False, True]

    def test_only_an_encoder_with_vectors_can_be_switched_to(self, filled: tuple[Store, MemoryStore]) -> None:
        with pytest.raises(UsageError):
            filled[0].switch(EncoderSpec("other", "d" * 64, 6, "none"), "other")
        assert filled[0].spec == SPEC
