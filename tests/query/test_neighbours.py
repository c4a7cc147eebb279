"""Pairs of near vectors against comparing every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.query.neighbours import Neighbours


def clustered(count: int, clusters: int, spread: float, seed: int) -> np.ndarray:
    """Vectors of length 1 at most around some centres, so that many lie near the planes between cells."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((clusters, 12))[random.integers(clusters, size=count)]
    vectors += spread * random.standard_normal((count, 12))
    return (vectors / np.linalg.norm(vectors, axis=1).max()).astype(np.float32)


def all_distances(vectors: np.ndarray) -> dict[tuple[int, int], float]:
    exact = vectors.astype(np.float64)
    distances = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    return {(i, j): distances[i, j] for i in range(len(vectors)) for j in range(i + 1, len(vectors))}


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 150), clusters=st.integers(1, 12),
    spread=st.sampled_from([0.0, 0.1, 0.5, 2.0]), radius=st.sampled_from([0.05, 0.2, 0.5]), size=st.integers(1, 60),
)  # fmt: skip
def test_every_near_pair_is_found_and_none_that_is_far(
    seed: int, count: int, clusters: int, spread: float, radius: float, size: int
) -> None:
    vectors = clustered(count, clusters, spread, seed)
    distances = all_distances(vectors)
    neighbours, found = Neighbours(vectors, radius), set()
    for start in range(0, count, size):
        pairs = neighbours.pairs(start, min(start + size, count), count * size)
        assert pairs is not None
        listed = [*zip(*(part.tolist() for part in pairs), strict=True)]
        assert listed == sorted(set(listed)), "in order, none twice"
        found.update(listed)
    assert {pair for pair, distance in distances.items() if distance <= radius} <= found
    assert all(distances[pair] ** 2 <= radius**2 + 1e-4 for pair in found)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.1, 0.5, 0.95]))
def test_what_is_dropped_is_not_found(seed: int, share: float) -> None:
    vectors, random = clustered(120, 4, 0.05, seed), np.random.default_rng(seed)
    neighbours, distances = Neighbours(vectors, 0.2), all_distances(vectors)
    is_dropped = np.zeros(120, dtype=bool)
    for start in range(0, 120, 30):
        pairs = neighbours.pairs(start, start + 30, 10**6)
        assert pairs is not None
        found = {*zip(*(part.tolist() for part in pairs), strict=True)}
        left = {(i, j) for i, j in distances if start <= i < start + 30 and not is_dropped[i] and not is_dropped[j]}
        assert found <= left and {pair for pair in left if distances[pair] <= 0.2} <= found
        is_dropped |= random.random(120) < share
        neighbours.drop(np.flatnonzero(is_dropped))


def test_too_many_pairs_are_none() -> None:
    neighbours = Neighbours(np.ones((50, 3), np.float32) / 2, 0.1)
    assert neighbours.pairs(0, 50, 50 * 49 // 2 - 1) is None
    one, other = neighbours.pairs(0, 50, 50 * 49 // 2) or pytest.fail("they are not too many")
    assert len(one) == len(other) == 50 * 49 // 2


def test_most_vectors_are_never_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of vectors in clumps that lie apart, only those of a clump are."""
    vectors = clustered(4000, 40, 0.02, 0)
    neighbours, looked_at = Neighbours(vectors, 0.02), []
    members = Neighbours._open_members
    monkeypatch.setattr(
        Neighbours, "_open_members", lambda self, cell, start: looked_at.append(cell) or members(self, cell, start)
    )
    for start in range(200):
        neighbours.pairs(start, start + 1, 10**6)
    assert 200 <= len(looked_at) < 0.1 * 200 * len(neighbours._members)
