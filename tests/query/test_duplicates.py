"""Duplicates against comparing every pair in full."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.core.types import EncoderSpec, MediaInfo
from mmsearch.filters import OneOf
from mmsearch.query import duplicates as module
from mmsearch.query.duplicates import duplicates
from mmsearch.query.looks import SAME
from mmsearch.store.base import NewDocument, NewSegment
from mmsearch.store.registry import family_of
from tests.support.colours import ColourEncoder, save_colour
from tests.support.memory_store import MemoryStore

SPEC = EncoderSpec("duplicates", "d" * 64, 80, "none")


def picture(
    name: str, pixels: int, hash_: bytes, taken: str | None = None, parts: int = 1, kind: str = "image"
) -> NewDocument:
    info = MediaInfo(4 * pixels, 3 * pixels, taken_at=taken)
    segments = [NewSegment() for _ in range(parts)]
    return NewDocument(name, kind, hash_, segments, "/photos", info, 10, 10**18)


def store_of(documents: list[NewDocument], vectors: np.ndarray) -> MemoryStore:
    store = MemoryStore(SPEC)
    store.upsert(documents, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    return store


def names(store: MemoryStore, **chosen: object) -> list[list[str]]:
    return [[one.path.rpartition("/")[2] for one in group.documents] for group in duplicates(store, **chosen)]  # type: ignore[arg-type]


def are_same(one: NewDocument, other: NewDocument, cosine: float, near: float) -> bool:
    """The rule, of one pair."""
    (width, height, taken), (other_width, other_height, other_taken) = (
        (each.info.width or 0, each.info.height or 0, each.info.taken_at) for each in (one, other)
    )
    if abs(width * other_height / (height * other_width) - 1) > 0.02:
        return False
    if taken and other_taken:
        apart = datetime.fromisoformat(taken) - datetime.fromisoformat(other_taken)
        if abs(apart.total_seconds()) > 3:
            return False
    is_scaled = max(width, other_width) >= 1.25 * min(width, other_width)
    return cosine >= near - (0.02 if is_scaled else 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40), near=st.sampled_from([SAME, 0.95, 0.7]))
def test_every_pair_that_is_alike_is_found(seed: int, count: int, near: float) -> None:
    """The leader of each group, and who is in it, as a plain loop over all pairs says."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((5, SPEC.dim))
    vectors = centres[random.integers(5, size=count)] + random.choice([0.02, 0.1, 0.4]) * random.standard_normal(
        (count, SPEC.dim)
    )
    documents = [
        picture(f"{number}.jpg", int(random.choice([100, 120, 200])), b"%d" % number,
                random.choice([None, "2020-01-01T10:00:00", "2020-01-01T10:00:02", "2021-01-01"]))
        for number in range(count)
    ]  # fmt: skip
    store = store_of(documents, vectors) if count else MemoryStore(SPEC)

    def goodness(i: int) -> tuple[float, str, str]:
        one = documents[i]
        return -(one.info.width or 0), one.info.taken_at or "2001", one.place

    order = sorted(range(count), key=goodness)
    rows = {document.path: one.vector for document, one in zip(documents, store.stored, strict=True)}
    expected, taken = [], set()
    for i in order:
        if i in taken:
            continue
        group = [i]
        for j in order[order.index(i) + 1 :]:
            cosine = float(rows[documents[i].path] @ rows[documents[j].path])
            if j not in taken and are_same(documents[i], documents[j], cosine, near):
                group.append(j)
        if len(group) > 1:
            taken.update(group)
            expected.append({documents[j].path for j in group})
    found = names(store, near=near)
    assert sorted(map(sorted, map(set, found))) == sorted(map(sorted, expected))


def test_of_very_many_copies_few_pairs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 copies of two pictures come together in the ranking, after 100 others: of these 44,850 pairs the best copy
    takes part in those that are needed.
    """
    looked_at = []
    monkeypatch.setattr("mmsearch.query.duplicates.MOST_PAIRS", 2000)
    verified = module._verified
    monkeypatch.setattr(
        module, "_verified", lambda store, rows, looks, pairs, near: looked_at.append(len(pairs[0]))
        or verified(store, rows, looks, pairs, near),
    )  # fmt: skip
    random = np.random.default_rng(0)
    vectors = random.standard_normal((400, SPEC.dim))
    vectors[100:] = vectors[random.integers(2, size=300)] + 0.01 * random.standard_normal((300, SPEC.dim))
    store = store_of([picture(f"{n}.jpg", 1000 - n, b"%d" % n) for n in range(400)], vectors)
    progress: list[tuple[int, int]] = []
    groups = [len(group.documents) for group in duplicates(store, progress=lambda *step: progress.append(step))]
    assert len(groups) == 2 and sum(groups) == 302
    assert sum(looked_at) < 2000
    assert progress == sorted(progress) and progress[-1] == (800, 800)


def test_the_best_comes_first() -> None:
    """The most pixels, then the oldest; groups by the date of their best, the newest first."""
    same = np.ones((1, SPEC.dim))
    other = np.eye(SPEC.dim)[:1]
    documents = [
        picture("small.jpg", 100, b"1"), picture("later.jpg", 200, b"2", "2020-01-01T00:00:02"),
        picture("first.jpg", 200, b"3", "2020-01-01T00:00:01"), picture("another day.jpg", 200, b"4", "2022-01-01"),
        picture("b.jpg", 50, b"5", "2023-05-01"), picture("a.jpg", 50, b"6", "2023-05-01"),
        picture("c.jpg", 50, b"7", "2023-05-01T00:00:01"),
    ]  # fmt: skip
    store = store_of(documents, np.concatenate([np.repeat(same, 4, 0), np.repeat(other, 3, 0)]))
    assert names(store) == [["a.jpg", "b.jpg", "c.jpg"], ["first.jpg", "later.jpg", "small.jpg"]]
    assert names(store, where=OneOf("path", ("a.jpg", "c.jpg", "small.jpg"))) == [["a.jpg", "c.jpg"]]
    [group] = duplicates(store, OneOf("path", ("a.jpg", "c.jpg")))
    assert group.keep.info.width == 200 and group.keep.date == "2023-05-01"


def test_equal_files_of_any_kind_and_pictures_in_parts() -> None:
    eye = np.eye(SPEC.dim)
    documents = [
        picture("one.mp4", 10, b"v", parts=2, kind="video"), picture("two.mp4", 10, b"v", parts=2, kind="video"),
        picture("wide.jpg", 10, b"w", parts=2), picture("wide copy.jpg", 9, b"x", parts=2),
        picture("half the same.jpg", 10, b"y", parts=2), picture("left.jpg", 10, b"z"),
    ]  # fmt: skip
    rows = eye[[0, 1, 0, 1, 2, 3, 2, 3, 2, 9, 2]]
    assert sorted(names(store_of(documents, rows))) == [["one.mp4", "two.mp4"], ["wide.jpg", "wide copy.jpg"]]


@pytest.mark.parametrize("near", [0.2, 1.5, float("nan")])
def test_near_is_a_cosine(near: float) -> None:
    with pytest.raises(UsageError, match="near is"):
        list(duplicates(MemoryStore(SPEC), near=near))


@pytest.mark.parametrize("address", ["local:{}/index", "milvus:{}/store.db"])
def test_every_store_has_the_same_groups(tmp_path: Path, address: str) -> None:
    """Pictures, pictures in parts and equal files, as in the store of plain lists."""
    if address.startswith("milvus"):
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    random = np.random.default_rng(1)
    documents, rows = [], []
    for number in range(120):
        parts, picture_ = (1 if number % 5 else 2), number % 40
        origin = np.random.default_rng(picture_).standard_normal((parts, SPEC.dim))
        is_equal = number >= 100
        rows.append(origin + (0.0 if is_equal else 0.03) * random.standard_normal(origin.shape))
        hash_ = b"same%d" % picture_ if is_equal else b"%d" % number
        documents.append(picture(f"{number}.jpg", 1000 - number % 7, hash_, parts=parts))
    documents += [replace(one, path=f"copy of {one.path}") for one in documents[100:]]
    vectors = np.concatenate([*rows, *rows[100:]])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    where = address.format(tmp_path)
    store = family_of(where).create(where, SPEC.name, SPEC)
    store.upsert(documents, vectors)
    expected = names(store_of(documents, vectors))
    assert len(expected) > 20 and sum(map(len, expected)) > 100
    assert names(store) == expected  # type: ignore[arg-type]
    store.close()


def test_of_an_index(tmp_path: Path) -> None:
    """Copies of files, and smaller ones; asked of an index directory."""
    for name, colour, size in (("red", "red", (80, 60)), ("blue", "blue", (80, 60)), ("small/red", "red", (40, 30))):
        save_colour(tmp_path / "files" / f"{name}.png", colour, size, seed=1)
    (tmp_path / "files" / "copy.png").write_bytes((tmp_path / "files" / "blue.png").read_bytes())
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "files")
        found = sorted([Path(one.path).name for one in group.documents] for group in index.duplicates())
        assert [sorted(group) for group in found] == [["blue.png", "copy.png"], ["red.png", "red.png"]]
        red = next(group for group in index.duplicates() if group.keep.path.endswith("red.png"))
        assert red.keep == replace(red.keep, path=str(tmp_path / "files" / "red.png"))
        assert [*index.duplicates("path:small/**")] == []
