"""How filters and vectors are searched together: which rows are looked at first, and when what satisfies is listed.

Without a filter that is one call of the vector search. With one, either the nearest rows are *sifted*, a part at a
time, or everything that satisfies is *listed* from the catalogue first, and only those rows are searched. Sifting costs
little where much satisfies, listing where little does; which it will be is probed or learned. Both are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmsearch.core.types import Modality
from mmsearch.store.base import Adjust, FloatArray, IdArray, Nearest, QueryKind, Segment
from mmsearch.store.local.catalogue import Catalogue, RowArray, RowOwners
from mmsearch.store.local.catalogue.matching import Condition, list_documents
from mmsearch.store.local.vector_index import Neighbours
from mmsearch.store.local.vectors import Vectors

SURE = 256
"""So many rows that satisfy are searched for once they are listed, at least: their order may be adjusted."""
AHEAD = 8
"""Rows looked at beyond the documents needed: some are of the same document."""
TRIED = 128
"""After so many rows of which too few satisfy the conditions, all that satisfy them are listed first."""
SIFTED = 2048
"""Up to so many of the nearest rows are sifted by the conditions, a part at a time: listing everything that satisfies
a condition costs more unless few do."""
ENOUGH = 4
"""Of the rows that are sifted, so many times the documents needed should satisfy the conditions: a query may be
about what a condition leaves out, and the order of the nearest is adjusted. To search for more rows costs more."""
LISTED = 20_000
"""Where a vector index is searched, so many documents that satisfy a condition are listed, as long as that is cheaper
than the scan of all rows that would be the next thing to try."""
PROBED = 64
"""Where search is exact, so many rows tell how many satisfy a condition; three times as many where that leaves a doubt
whether they are few, ..."""
NARROW = 1 / 24
"""... which is listed before any search where the share of them is smaller, ..."""
LISTED_FIRST = 2_000
"""... up to so many documents, or a 32nd of the rows, ..."""
PATIENCE_FIRST, PATIENCE = 2_000, 20_000
"""... unless after so many steps hardly any were found, which takes 0.3 ms. The other one is for listing where a
vector index is searched; there also an 8th of the rows. See `list_documents`."""
RARE = 0.1
"""A condition that holds for a smaller share of the nearest rows is taken for a narrow one."""


class Restriction(NamedTuple):
    """What `where` says, in the catalogue's terms: an SQL condition, and the kinds that rows tell without it."""

    condition: Condition | None
    modalities: tuple[Modality, ...] | None


class Listed(NamedTuple):
    """All ``documents`` that satisfy, and their ``rows``."""

    documents: set[int]
    rows: RowArray


class Sifted(NamedTuple):
    """What was found to satisfy: rows in the order of the search with their segments, and the documents.

    ``is_whole``: all of the nearest rows were looked at.
    """

    rows: list[int]
    segments: dict[int, list[Segment]]
    documents: set[int]
    is_whole: bool = False

    @property
    def held(self) -> int:
        """How many are there for certain: rows may be of one document, and documents share a row."""
        return min(len(self.rows), len(self.documents))


@dataclass(frozen=True)
class Search:
    """One query with a filter. ``fetch``: rows to segments in the documents for which a condition holds."""

    catalogue: Catalogue
    vectors: Vectors
    owners: Callable[[], RowOwners]
    fetch: Callable[[Sequence[int], Condition | None], list[Segment]]
    restriction: Restriction
    allowed: dict[str, Any]
    """The rows that may be found whatever the condition says, as `Vectors.search` takes them."""
    vector: FloatArray
    k: int
    kind: QueryKind
    adjust: Adjust | None

    def run(self, pool: int) -> Nearest:
        """At least ``k`` rows and documents, if there are so many, from at least ``pool`` of the nearest rows."""
        wanted, listed = max(self.k, pool), None
        if self.vectors.recipe == "exact":
            share = self._share_that_holds()
            listed = self._listed_first() if share < NARROW else None
            if listed is None:
                wanted = max(wanted, min(SIFTED, int(ENOUGH * self.k / share)))
        while True:
            near = self._nearest(wanted, listed)
            found = self._sift(near, listed, may_give_up=listed is None and len(near) >= wanted)
            if found.held >= self.k or len(near) < wanted:
                return self._result(near, found, is_all=len(near) < wanted and found.is_whole)
            if listed is None:
                reach = self.vectors.reach(self.kind)
                if wanted < reach and found.held * reach > self.k * len(near):  # the next rows will do
                    wanted = reach
                    continue
                listed = self._listed_after(found.held, len(near), wanted)
                if listed is not None:
                    wanted = max(2 * self.k, SURE)
                    continue
                wanted = max(wanted, SIFTED // 4)
            wanted *= 4

    def _nearest(self, wanted: int, listed: Listed | None) -> Neighbours:
        rows = self.allowed if listed is None else {"only": listed.rows}
        return self.vectors.search(self.vector[None], wanted, kind=self.kind, **rows)[0]

    def _result(self, near: Neighbours, found: Sifted, *, is_all: bool) -> Nearest:
        places = dict(zip(near.rows.tolist(), range(len(near)), strict=True))
        at = sorted(places[row] for row in found.rows)
        return Nearest(near.rows[at], near.scores[at], is_all, found.segments)

    def _sift(self, near: Neighbours, listed: Listed | None, *, may_give_up: bool) -> Sifted:
        """Which of the nearest rows satisfy, best first, until ``k`` documents are there.

        Where there are more rows than these, it may give up as soon as these will hardly do.
        """
        places = self._order(near)
        found = Sifted([], {}, set())
        start, step = 0, self.k + AHEAD
        while start < len(places) and found.held < self.k:
            rows = near.rows[places[start : start + step]].tolist()
            start += len(rows)
            segments = self.fetch(rows, None if listed is not None else self.restriction.condition)
            for segment in segments:
                if listed is None or segment.document in listed.documents:
                    found.segments.setdefault(segment.id, []).append(segment)
                    found.documents.add(segment.document)
            found.rows.extend(row for row in rows if row in found.segments)
            step *= 2
            held = found.held
            if held:  # where few of many rows hold, doubling would look up far more than are missing
                step = min(step, max(self.k + AHEAD, int(1.5 * (self.k - held) * start / held)))
            if may_give_up and start >= TRIED and 2 * held * len(places) < self.k * start:
                break
        return found._replace(is_whole=start >= len(places))

    def _order(self, near: Neighbours) -> IdArray:
        """Places in the order in which they are looked at, without those that must not come."""
        if self.adjust is None:
            return np.arange(len(near), dtype=np.int64)
        keys = self.adjust(near.rows, near.scores)
        places = np.lexsort((near.rows, -keys))
        ordered: IdArray = places[keys[places] > -np.inf]
        return ordered

    # How many satisfy

    def _share_that_holds(self) -> float:
        """About which share of the rows satisfies the condition, above 0, from a few of them."""
        count = len(self.vectors.matrix)
        assert self.restriction.condition is not None
        if self.restriction.condition.is_wide or not count:
            return 1.0
        # At random, always the same: rows in equal steps may all be of one kind (every 11th lies in one folder, say).
        rows = np.random.default_rng(0).integers(0, count, 3 * PROBED).tolist()
        first, more = set(rows[:PROBED]), set(rows) - set(rows[:PROBED])
        holding, probed = self._count_holding(first), len(first)
        if holding + 0.5 <= 2 * NARROW * (probed + 1):
            holding, probed = holding + self._count_holding(more), probed + len(more)
        return (holding + 0.5) / (probed + 1)

    def _count_holding(self, rows: set[int]) -> int:
        return len({segment.id for segment in self.fetch(sorted(rows), self.restriction.condition)})

    # Listing

    def _listed_first(self) -> Listed | None:
        """What satisfies, where that are few and the database leads to them."""
        return self._listed(max(LISTED_FIRST, len(self.vectors.matrix) // 32), PATIENCE_FIRST)

    def _listed_after(self, held: int, seen: int, wanted: int) -> Listed | None:
        """What satisfies, where listing it is the best next step.

        ``held`` of the ``seen`` nearest rows did. After a vector index, a scan of all rows would come next: where few
        rows hold, those that do are listed instead, unless they turn out to be more than `LISTED`.
        """
        is_exact = self.vectors.recipe == "exact"
        if wanted >= (SIFTED if is_exact else TRIED):
            return self._listed()
        if is_exact or held >= RARE * seen:
            return None
        return self._listed(LISTED, max(PATIENCE, len(self.vectors.matrix) // 8))

    def _listed(self, most: int | None = None, patience: int | None = None) -> Listed | None:
        """See `list_documents`."""
        assert self.restriction.condition is not None
        pairs = list_documents(self.catalogue, self.restriction.condition, most=most, patience=patience)
        if pairs is None:
            return None
        documents, contents = pairs
        owners = self.owners()
        _, rows = owners.of_contents(contents)
        if self.restriction.modalities is not None:
            rows = rows[owners.are_of_modalities(rows, self.restriction.modalities)]
        return Listed(set(documents.tolist()), rows)
