"""Pictures that are there more than once: all near-duplicates of a store, in groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError
from mmsearch.core.types import DocumentInfo
from mmsearch.filters import Where
from mmsearch.query.moments import SAME, SAME_SCALED, are_same
from mmsearch.store.base import FloatArray, IdArray, Look, Store

SUBSPACE = 64
"""Dimensions in which all pairs are compared at first: no pair is nearer in all dimensions than it is in some."""
_BLOCK, _MANY = 1024, 4096


class Duplicates(NamedTuple):
    """Documents that show the same, at least two, the one to keep first: the most pixels, then the oldest."""

    documents: tuple[DocumentInfo, ...]

    @property
    def keep(self) -> DocumentInfo:
        """The best of them."""
        return self.documents[0]


def duplicates(store: Store, where: Where | None = None, near: float = SAME) -> Iterator[Duplicates]:
    """The groups among the documents that satisfy ``where``, those with the newest best document first.

    Equal files are duplicates, whatever their modality. So are pictures of one shape, not taken at different times,
    whose vectors have a cosine of ``near`` at least, a little less for a smaller copy (see `are_same`). A picture in
    parts is compared part by part. Each document is compared with the best of a group, so that no chain of small
    differences joins what is unlike.

    Raises:
        UsageError: ``near`` is no cosine above 0.5.
    """
    if not isinstance(near, (int, float)) or not 0.5 <= near <= 1:
        raise UsageError(f"near is {near!r}: give a cosine from 0.5 to 1, such as {SAME:g}")
    ids = _documents(store, where)
    if not ids:
        return
    documents, segments = store.segments(ids)
    order = np.lexsort((segments, documents))
    documents, segments = documents[order], segments[order]
    starts = np.flatnonzero(np.diff(documents, prepend=documents[:1] - 1))
    owners, counts = documents[starts], np.diff([*starts, len(documents)])
    known = store.describe(owners.tolist())
    places = sorted(
        (place for place, id_ in enumerate(owners.tolist()) if id_ in known),
        key=lambda place: _goodness(known[int(owners[place])]),
    )
    ranks = {place: rank for rank, place in enumerate(places)}
    pairs = [(ranks[one], ranks[other]) for one, other in _equal(segments[starts], places)]
    looks = [_look(known[int(owners[place])]) for place in places]
    pictures = [place for place in places if known[int(owners[place])].modality == "image"]
    for count in sorted({int(counts[place]) for place in pictures}):
        alike = [place for place in pictures if counts[place] == count]
        rows = segments[starts[alike][:, None] + np.arange(count)]
        for one, other, cosine in _near(store, rows, near - (SAME - SAME_SCALED)):
            pair = ranks[alike[one]], ranks[alike[other]]
            if are_same(cosine, looks[pair[0]], looks[pair[1]], near):
                pairs.append((min(pair), max(pair)))
    groups = [[known[int(owners[places[rank]])] for rank in group] for group in _groups(pairs)]
    groups.sort(key=lambda group: group[0].path)
    groups.sort(key=lambda group: group[0].date or "", reverse=True)
    yield from (Duplicates(tuple(group)) for group in groups)


def _documents(store: Store, where: Where | None) -> list[int]:
    """Ids, ascending."""
    every, found = (one.id for one in store.scan()), []
    while part := list(islice(every, _MANY)):
        held = part if where is None else store.matching(part, where)
        found += [id_ for id_ in part if where is None or id_ in held]
    return found


def _goodness(one: DocumentInfo) -> tuple[int, str, int, str]:
    """Sorts the best first."""
    pixels = (one.info.width or 0) * (one.info.height or 0)
    return -pixels, one.date or "~", -one.size, one.path


def _look(one: DocumentInfo) -> Look:
    return Look(one.info.width, one.info.height, one.info.taken_at)


def _equal(first: IdArray, places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each place that has the first segment of a place before it, which is that of an equal file, with that one."""
    leaders: dict[int, int] = {}
    for place in places:
        leader = leaders.setdefault(int(first[place]), place)
        if leader != place:
            yield leader, place


def _near(store: Store, rows: IdArray, least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of places in ``rows`` (n, parts) whose parts have a mean cosine of ``least`` at least, with that.

    Exact: the distance of two vectors in a subspace is at most their distance. The subspace is that of the most
    variance of a sample of the first parts.
    """
    n, parts = rows.shape
    if n < 2:
        return
    thin, basis = np.zeros((0, 0), np.float32), None
    for start in range(0, n, _MANY):
        block = _vectors(store, rows[start : start + _MANY, :1])
        if basis is None:
            basis = _basis(store, rows) / np.sqrt(np.float32(parts))
            thin = np.empty((n, basis.shape[1]), np.float32)
        thin[start : start + len(block)] = block @ basis
    half = (thin * thin).sum(1) / 2
    apart = 1 - least + 1e-5  # half of the squared distance of two vectors of length 1 is 1 − their cosine
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        distance = half[start:stop, None] + half[None, start:] - thin[start:stop] @ thin[start:].T
        one, other = np.nonzero(distance <= apart)
        one, other = one[other > one] + start, other[other > one] + start
        for at in range(0, len(one), _MANY):
            yield from _verified(store, rows, one[at : at + _MANY], other[at : at + _MANY], least)


def _verified(
    store: Store, rows: IdArray, one: npt.NDArray[np.intp], other: npt.NDArray[np.intp], least: float
) -> Iterator[tuple[int, int, float]]:
    cosines = np.einsum("ij,ij->i", _vectors(store, rows[one]), _vectors(store, rows[other]))
    for place in np.flatnonzero(cosines >= least).tolist():
        yield int(one[place]), int(other[place]), float(cosines[place])


def _basis(store: Store, rows: IdArray) -> FloatArray:
    """(dim, at most `SUBSPACE`), orthonormal: the directions of the most variance among a few thousand vectors."""
    sample = _vectors(store, rows[np.linspace(0, len(rows) - 1, min(len(rows), _MANY)).astype(int), :1])
    centred = sample - sample.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    basis: FloatArray = np.ascontiguousarray(vectors[:, ::-1][:, :SUBSPACE], dtype=np.float32)
    return basis


def _vectors(store: Store, rows: IdArray) -> FloatArray:
    """The vectors of the parts (n, parts) beside each other, of length 1: (n, parts · dim)."""
    n, parts = rows.shape
    ids, places = np.unique(rows.ravel(), return_inverse=True)
    vectors: FloatArray = store.vectors(ids)[places.ravel()].reshape(n, -1)
    vectors /= np.sqrt(np.float32(parts))
    return vectors


def _groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Ranks in groups, each of which begins with its best, to which all others are near: the better take first."""
    near: dict[int, set[int]] = {}
    for one, other in pairs:
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    taken: set[int] = set()
    groups = []
    for leader in sorted(near):
        if leader not in taken:
            group = [leader, *sorted(other for other in near[leader] if other > leader and other not in taken)]
            taken.update(group)
            if len(group) > 1:
                groups.append(group)
    return groups
