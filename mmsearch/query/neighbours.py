"""All pairs of vectors that are near each other, exactly, though most pairs are never compared.

Vectors are put into cells, each around a centre. Two that lie on different sides of the plane midway between two
centres are at least as far apart as either is from that plane: so a vector is compared with those of another cell only
if it is near the plane between them. Near-duplicates are so near that of many cells one in a hundred remains.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from mmsearch.store.base import FloatArray

Places = npt.NDArray[np.intp]
MOST_CELLS = 4096
LEARNED_FROM = 16
"""Vectors a centre: more make cells little better."""
ROUNDS = 3
_BLOCK = 4096
_ERROR = np.float32(1e-5)
"""What float32 may get wrong in half a squared distance of vectors of length 1 at most."""


class Neighbours:
    """Of ``vectors`` (n, dim), of length 1 at most, the pairs whose distance is ``radius`` at most. What is dropped is
    not found any more.
    """

    def __init__(self, vectors: FloatArray, radius: float) -> None:
        self._radius = np.float32(radius)
        self._is_open = np.ones(len(vectors), dtype=bool)
        self._centres = _centres(vectors, min(len(vectors), 2 * isqrt(len(vectors)), MOST_CELLS))
        self._halves = _halves(self._centres)
        between = self._halves[:, None] + self._halves - self._centres @ self._centres.T
        self._gaps = np.sqrt(np.maximum(2 * between, 0))
        self._cell_of = _nearest(vectors, self._centres)
        members = np.argsort(self._cell_of, kind="stable")
        ends = np.cumsum(np.bincount(self._cell_of, minlength=len(self._centres)))
        self._starts = ends - np.diff(ends, prepend=0)
        self._members: list[Places] = np.split(members, ends[:-1])
        # cell by cell, so that nothing is gathered to compare; half the squared length behind each saves a sum a pair
        self._vectors = np.empty((len(vectors), vectors.shape[1] + 1), dtype=np.float32)
        np.take(vectors, members, axis=0, out=self._vectors[:, :-1])
        self._vectors[:, -1] = _halves(self._vectors[:, :-1])
        self._row_of = np.empty_like(members)
        self._row_of[members] = np.arange(len(members))

    def drop(self, places: Places) -> None:
        """Leaves some out from now on."""
        self._is_open[places] = False

    def pairs(self, start: int, stop: int, most: int) -> tuple[Places, Places] | None:
        """Each of the places ``start`` to ``stop`` with all near ones that come after it, side by side and in order;
        ``None`` where these pairs are more than ``most``. Nothing before ``start`` can be asked for any more.
        """
        places = start + np.flatnonzero(self._is_open[start:stop])
        own, vectors = self._cell_of[places], self._vectors[self._row_of[places]]
        halves = vectors[:, -1:].copy()
        vectors[:, -1] = -1
        beyond = self._halves - vectors[:, :-1] @ self._centres.T
        beyond -= beyond[np.arange(len(places)), own][:, None]  # times the gap: how far from the plane between
        reached = beyond <= self._gaps[own] * self._radius + _ERROR
        least = self._radius * self._radius / 2 + _ERROR
        found, count = [(places[:0], places[:0])], 0
        for cell in np.flatnonzero(reached.any(0)).tolist():
            others = self._open_members(cell, start)
            inside = self._vectors[self._starts[cell] : self._starts[cell] + len(others)]
            asked = np.flatnonzero(reached[:, cell])
            one, other = np.nonzero(vectors[asked] @ inside.T >= halves[asked] - least)
            one, other = places[asked[one]], others[other]
            is_wanted = (other > one) & self._is_open[other]
            found.append((one[is_wanted], other[is_wanted]))
            count += len(found[-1][0])
            if count > most:
                return None
        one, other = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((other, one))
        return one[order], other[order]

    def _open_members(self, cell: int, start: int) -> Places:
        """Those of a cell, of which what is dropped or comes before ``start`` is forgotten once it is many."""
        members = self._members[cell]
        first = int(np.searchsorted(members, start))
        kept = first + np.flatnonzero(self._is_open[members[first:]])
        if len(kept) < 0.8 * len(members):
            top = self._starts[cell]
            self._vectors[top : top + len(kept)] = self._vectors[top + kept]
            members = self._members[cell] = members[kept]
            self._row_of[members] = np.arange(top, top + len(kept))
        return members


def _halves(vectors: FloatArray) -> FloatArray:
    """Half their squared lengths."""
    halves: FloatArray = np.einsum("ij,ij->i", vectors, vectors) / 2
    return halves


def _nearest(vectors: FloatArray, centres: FloatArray) -> Places:
    halves, found = _halves(centres), np.empty(len(vectors), dtype=np.intp)
    for start in range(0, len(vectors), _BLOCK):
        found[start : start + _BLOCK] = (halves - vectors[start : start + _BLOCK] @ centres.T).argmin(1)
    return found


def _centres(vectors: FloatArray, count: int) -> FloatArray:
    """The centres of k-means on some of the vectors. Which ones they are matters for speed alone."""
    random = np.random.default_rng(0)
    sample = vectors[np.sort(random.choice(len(vectors), min(len(vectors), LEARNED_FROM * count), replace=False))]
    centres = sample[random.choice(len(sample), count, replace=False)]
    for _ in range(ROUNDS):
        cells = _nearest(sample, centres)
        order = np.argsort(cells, kind="stable")
        held, starts = np.unique(cells[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts)
        centres[held] = sums / np.diff([*starts, len(sample)]).astype(np.float32)[:, None]
    return centres
