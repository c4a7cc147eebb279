"""Pictures that are there more than once: all near-duplicates of a store, in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.core.types import DocumentInfo
from mmsearch.filters import Where
from mmsearch.query.looks import SAME, SCALED, Looks
from mmsearch.query.neighbours import Neighbours, Places
from mmsearch.store.base import FloatArray, IdArray, Look, Store

SUBSPACE = 64
"""Dimensions in which pairs are compared at first: no pair is nearer in all dimensions than it is in some."""
_MANY = 4096
MOST_PAIRS = 1 << 18
"""Pairs that are looked at together."""
Seen = Callable[[int, int], None]


class Duplicates(NamedTuple):
    """Documents that show the same, at least two, the one to keep first: the most pixels, then the oldest."""

    documents: tuple[DocumentInfo, ...]

    @property
    def keep(self) -> DocumentInfo:
        """The best of them."""
        return self.documents[0]


def duplicates(
    store: Store, where: Where | None = None, near: float = SAME, progress: Seen = lambda done, total: None
) -> Iterator[Duplicates]:
    """The groups among the documents that satisfy ``where``, those with the newest best document first.

    Equal files are duplicates, whatever their modality. So are pictures of one shape, not taken at different times,
    whose vectors have a cosine of ``near`` at least, a little less for a smaller copy (see `Looks`). A picture in
    parts is compared part by part. Each document is compared with the best of a group, so that no chain of small
    differences joins what is unlike.

    The result is that of comparing all pairs. Before the first group comes, all are known; ``progress`` is told how
    many steps of how many are done. What is known of documents is held in columns, about 2 kB each with their vectors
    in the subspace, and read in full only for the groups that are asked for.

    Raises:
        UsageError: ``near`` is no cosine above 0.5.
    """
    if not isinstance(near, (int, float)) or not 0.5 <= near <= 1:
        raise UsageError(f"near is {near!r}: give a cosine from 0.5 to 1, such as {SAME:g}")
    ids = _documents(store, where)
    if not ids:
        return
    steps = _Steps(2 * len(ids), progress)
    ranked = _Ranked(store, ids, steps)
    groups = _equal(ranked)
    for count in np.unique(ranked.counts[ranked.looks.are_pictures]).tolist():
        places = np.flatnonzero(ranked.looks.are_pictures & (ranked.counts == count))
        groups += _alike(store, ranked, places, near, steps)
    groups.sort(key=lambda group: ranked.paths[group[0]])
    groups.sort(key=lambda group: ranked.dates[group[0]], reverse=True)
    yield from _described(store, [ranked.ids[group] for group in groups])


class _Steps:
    """Counts what is done."""

    def __init__(self, total: int, progress: Seen) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def done(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)


class _Ranked:
    """What is known of some documents, (n,) each, the best first. The segments of each are those of ``segments`` that
    begin at ``firsts``, ``counts`` of them.
    """

    def __init__(self, store: Store, ids: Sequence[int], steps: _Steps) -> None:
        documents, segments = store.segments(ids)
        order = np.argsort(documents, kind="stable")  # parts stay in their order, which that of ids need not be
        self.segments = segments[order]
        owners, firsts, counts = np.unique(documents[order], return_index=True, return_counts=True)
        places, pixels, sizes, dates, looks = [], [], [], [], []
        paths: list[str] = []
        for start in range(0, len(owners), _MANY):
            part = owners[start : start + _MANY].tolist()
            known = store.describe(part)
            found = [known[id_] for id_ in part if id_ in known]
            places.append(start + np.flatnonzero([id_ in known for id_ in part]))
            pixels.append(np.array([(one.info.width or 0) * (one.info.height or 0) for one in found], dtype=np.int64))
            sizes.append(np.array([one.size for one in found], dtype=np.int64))
            dates.append(np.array([(one.date or "").encode() for one in found], dtype=np.bytes_))
            looks.append(Looks.of(_look(one) for one in found))
            paths += [one.path for one in found]
            steps.done(len(part))
        by_path = np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.intp)
        date = np.concatenate(dates)[by_path]
        latest = np.where(date == b"", b"~", date)
        best = by_path[np.lexsort((-np.concatenate(sizes)[by_path], latest, -np.concatenate(pixels)[by_path]))]
        at = np.concatenate(places)[best]
        self.ids, self.firsts, self.counts = owners[at], firsts[at], counts[at]
        self.looks = Looks.joined(looks).at(best)
        self.dates = np.concatenate(dates)[best]
        self.paths = [paths[place] for place in best.tolist()]


def _documents(store: Store, where: Where | None) -> list[int]:
    """Ids, ascending."""
    every, found = (one.id for one in store.scan()), []
    while part := list(islice(every, _MANY)):
        held = part if where is None else store.matching(part, where)
        found += [id_ for id_ in part if where is None or id_ in held]
    return found


def _look(one: DocumentInfo) -> Look | None:
    return Look(one.info.width, one.info.height, one.info.taken_at) if one.modality == "image" else None


def _equal(ranked: _Ranked) -> list[Places]:
    """Groups of equal files that are no pictures."""
    others = np.flatnonzero(~ranked.looks.are_pictures)
    first = ranked.segments[ranked.firsts[others]]
    order = np.argsort(first, kind="stable")
    groups = np.split(others[order], np.flatnonzero(np.diff(first[order])) + 1)
    return [group for group in groups if len(group) > 1]


def _alike(store: Store, ranked: _Ranked, places: Places, near: float, steps: _Steps) -> Iterator[Places]:
    """Groups of pictures, all of as many parts, at ``places`` of ``ranked``: each begins with its best, to which all
    others are near; the better take first.
    """
    rows = ranked.segments[ranked.firsts[places][:, None] + np.arange(ranked.counts[places[0]])]
    looks = ranked.looks.at(places)
    # half of the squared distance of two vectors of length 1 is 1 − their cosine
    neighbours = Neighbours(_thin(store, rows), np.sqrt(2 * (1 - (near - SCALED))))
    is_taken = np.zeros(len(rows), dtype=bool)
    start, size = 0, 1
    while start < len(rows):
        stop = min(start + size, len(rows))
        pairs = neighbours.pairs(start, stop, MOST_PAIRS if size > 1 else len(rows))
        if pairs is None:
            size = max(1, size // 4)
            continue
        for leader, members in _by_leader(*_verified(store, rows, looks, pairs, near)):
            free = members[~is_taken[members]]
            if not is_taken[leader] and len(free):
                is_taken[free] = True
                yield places[np.concatenate([[leader], free])]
        neighbours.drop(np.flatnonzero(is_taken))
        steps.done(stop - start)
        start, size = stop, min(2 * size, _MANY)  # the first of many copies take all others before these are compared


def _thin(store: Store, rows: IdArray) -> FloatArray:
    """The first parts of ``rows`` (n, parts) in the subspace of the most variance of a sample of them."""
    n, parts = rows.shape
    basis = _basis(_vectors(store, rows[np.linspace(0, n - 1, min(n, _MANY)).astype(int), :1]))
    thin = np.empty((n, basis.shape[1]), np.float32)
    for start in range(0, n, _MANY):
        thin[start : start + _MANY] = _vectors(store, rows[start : start + _MANY, :1]) @ basis
    thin /= np.sqrt(np.float32(parts))
    return thin


def _basis(sample: FloatArray) -> FloatArray:
    """(dim, at most `SUBSPACE`), orthonormal: the directions of the most variance."""
    centred = sample - sample.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    basis: FloatArray = np.ascontiguousarray(vectors[:, ::-1][:, :SUBSPACE], dtype=np.float32)
    return basis


def _verified(
    store: Store, rows: IdArray, looks: Looks, pairs: tuple[Places, Places], near: float
) -> tuple[Places, Places]:
    """Those of some pairs of places that are equal or near-duplicates, by all dimensions of all their parts."""
    one, other = pairs
    could_be = looks.same(one, other) | (rows[one, 0] == rows[other, 0])
    one, other = one[could_be], other[could_be]
    is_same = np.zeros(len(one), dtype=bool)
    for start in range(0, len(one), _MANY):
        part = slice(start, start + _MANY)
        left, right = one[part], other[part]
        cosines = np.einsum("ij,ij->i", _vectors(store, rows[left]), _vectors(store, rows[right]))
        is_same[part] = looks.same(left, right, cosines, near) | (rows[left, 0] == rows[right, 0])
    return one[is_same], other[is_same]


def _vectors(store: Store, rows: IdArray) -> FloatArray:
    """The vectors of the parts (n, parts) beside each other, of length 1: (n, parts · dim)."""
    n, parts = rows.shape
    ids, places = np.unique(rows.ravel(), return_inverse=True)
    vectors: FloatArray = store.vectors(ids)[places.ravel()].reshape(n, -1)
    vectors /= np.sqrt(np.float32(parts))
    return vectors


def _by_leader(one: Places, other: Places) -> Iterator[tuple[int, Places]]:
    """Each of ``one``, ascending, with the others it is paired with."""
    leaders, starts = np.unique(one, return_index=True)
    bounds = [*starts.tolist(), len(one)]
    for leader, start, end in zip(leaders.tolist(), bounds, bounds[1:], strict=False):
        yield leader, other[start:end]


def _described(store: Store, groups: Sequence[IdArray]) -> Iterator[Duplicates]:
    """A few thousand documents at once; what is gone meanwhile is left out."""
    remaining = iter(groups)
    while part := list(_until(remaining, _MANY)):
        known = store.describe([id_ for group in part for id_ in group.tolist()])
        for group in part:
            documents = tuple(known[id_] for id_ in group.tolist() if id_ in known)
            if len(documents) > 1:
                yield Duplicates(documents)


def _until(groups: Iterator[IdArray], enough: int) -> Iterator[IdArray]:
    """The next groups, which have so many documents together."""
    count = 0
    while count < enough and (group := next(groups, None)) is not None:
        count += len(group)
        yield group
