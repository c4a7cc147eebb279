"""The best segments of the best documents for one vector, inside every condition of a question."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import Modality
from mmsearch.models.encoders.base import FloatArray
from mmsearch.query.calibrate.calibration import Background, Kind
from mmsearch.query.evidence import HoldersOfWords
from mmsearch.query.exclusion import Concept, judge_excluded
from mmsearch.store.local.catalogue import Catalogue, Found, RowArray, RowOwners, Space
from mmsearch.store.local.catalogue.matching import (
    Condition,
    contents_of_documents,
    documents_where,
    find_rows_where,
    list_documents,
)
from mmsearch.store.local.vector_index import Neighbours
from mmsearch.store.local.vectors import Vectors

FIRST = 40
"""Rows asked for first: vector indexes are tuned for about so many."""
CORRECTED = 256
"""So many of the nearest rows are put in order by their corrected scores, where search is exact."""
AHEAD = 8
"""Rows looked at beyond the documents needed: some are of the same document."""
TRIED = 128
"""After so many rows of which too few satisfy the conditions, all that satisfy them are listed first."""
SIFTED = 2048
"""Up to so many of the nearest rows are sifted by the conditions, a part at a time: listing everything that satisfies
a condition costs more unless few do."""
ENOUGH = 4
"""Of the rows that are sifted, so many times the documents needed should satisfy the conditions: a question may be
about what a condition leaves out, and the order of the nearest is corrected. To ask for more rows costs more."""
LISTED = 20_000
"""Where a vector index answers, so many documents that satisfy a condition are listed, as long as that is cheaper than
the scan of all rows that would be the next thing to try."""
PROBED = 64
"""Where search is exact, so many rows tell how many satisfy a condition; three times as many where that leaves a doubt
whether they are few, ..."""
NARROW = 1 / 24
"""... which is listed before any search where the share of them is smaller, ..."""
LISTED_FIRST = 2_000
"""... up to so many documents, or a 32nd of the rows, ..."""
PATIENCE_FIRST, PATIENCE = 2_000, 20_000
"""... unless after so many steps hardly any were found, which takes 0.3 ms. The other one is for listing where a
vector index answers; there also an 8th of the rows. See `list_documents`."""
RARE = 0.1
"""A condition that holds for a smaller share of the nearest rows is taken for a narrow one."""


class Candidate(NamedTuple):
    """A document's best segment. ``total`` is ``cosine`` + ``hubness`` (0 or less) + ``words`` (0 or more), what a
    reranker moved it by, and ``excluded`` (0 or less): the doubt whether it shows what must not show.
    """

    segment: Found
    cosine: float
    hubness: float
    words: float = 0.0
    rerank: float = 0.0
    excluded: float = 0.0

    @property
    def total(self) -> float:
        """What candidates are ordered by."""
        return self.cosine + self.hubness + self.words + self.rerank + self.excluded

    @property
    def parts(self) -> dict[str, float]:
        """What ``total`` is the sum of."""
        parts = {"similarity": self.cosine, "hubness": self.hubness, "words": self.words}
        more = {"rerank": self.rerank, "excluded": self.excluded}
        return {**parts, **{name: value for name, value in more.items() if value}}


class First(NamedTuple):
    """What a batch of questions looked up together: the answer to the first vector search of one of them, and by row
    the segments of the first answers to all; ``words`` is shared, see `find_evidence`.
    """

    neighbours: Neighbours
    segments: Mapping[int, Sequence[Found]]
    words: HoldersOfWords


@dataclass(frozen=True, eq=False)
class Terms:
    """Under which terms rows may answer, and how their scores are corrected.

    ``modalities`` ``None``: all that there are. ``excluded``: vectors of concepts that must not show, and ``wanted``:
    of what is asked for, each with the spread of its scores. ``alpha``: of the hubness correction.
    """

    kind: Kind
    modalities: tuple[Modality, ...] | None
    condition: Condition | None = None
    excluded: tuple[Concept, ...] = ()
    wanted: Concept | None = None
    alpha: float = 0.0
    first: First | None = field(default=None)
    """What a batch has looked up already."""


class Candidates:
    """Finds the best documents for one vector. ``dead`` rows never answer."""

    def __init__(
        self, catalogue: Catalogue, space: Space, vectors: Vectors, matrix: npt.NDArray[np.float16],
        background: Background, dead: RowArray,
    ) -> None:  # fmt: skip
        self._catalogue, self._space, self._vectors = catalogue, space, vectors
        self._matrix, self._background, self._dead = matrix, background, dead
        self._reading = threading.Lock()
        self._owners: RowOwners | None = None

    @property
    def owners(self) -> RowOwners:
        """Whose the rows are; read when that is asked for the first time."""
        with self._reading:
            if self._owners is None:
                self._owners = self._catalogue.row_owners(self._space.id, self._space.row_count, self._dead)
            return self._owners

    def best(self, vector: FloatArray, need: int, terms: Terms) -> list[Candidate]:
        """The ``need`` best documents or more, best first, ties by document; fewer only if there are fewer."""
        only: dict[str, Any] = self._allowed_rows(terms)
        documents: set[int] | None = None
        wanted, neighbours = self.first_wanted(need, terms.kind, terms.alpha), terms.first and terms.first.neighbours
        if terms.condition is not None and neighbours is None and self._vectors.recipe == "exact":
            share = self._share_of(terms.condition)
            listed = self._listed_first(terms) if share < NARROW else None
            if listed is None:
                wanted = max(wanted, min(SIFTED, int(ENOUGH * need / share)))
            else:
                documents, only = listed
        if terms.excluded:
            wanted = max(wanted, CORRECTED)
        while True:
            if neighbours is None:
                neighbours = self._vectors.search(vector[None], wanted, kind=terms.kind, **only)[0]
            best = self._documents(neighbours, need, terms, documents, more=len(neighbours) >= wanted)
            if len(best) >= need or len(neighbours) < wanted:
                return best
            if terms.condition is not None and documents is None:
                reach = self._vectors.reach(terms.kind)
                if wanted < reach and len(best) * reach > need * len(neighbours):  # the next rows will probably do
                    wanted, neighbours = reach, None
                    continue
                listed = self._listed_after(terms, len(best), len(neighbours), wanted)
                if listed is not None:
                    documents, only = listed
                    wanted, neighbours = max(2 * need, CORRECTED), None
                    continue
                wanted = max(wanted, SIFTED // 4)
            wanted, neighbours = wanted * 4, None

    def _share_of(self, condition: Condition) -> float:
        """About which share of the rows satisfies it, above 0, from a few of them."""
        if condition.is_wide or not len(self._matrix):
            return 1.0
        # At random, always the same: rows in equal steps may all be of one kind (every 11th lies in one folder, say).
        rows = np.random.default_rng(0).integers(0, len(self._matrix), 3 * PROBED).tolist()
        first, more = set(rows[:PROBED]), set(rows) - set(rows[:PROBED])
        holding, probed = self._count_holding(first, condition), len(first)
        if holding + 0.5 <= 2 * NARROW * (probed + 1):
            holding, probed = holding + self._count_holding(more, condition), probed + len(more)
        return (holding + 0.5) / (probed + 1)

    def _count_holding(self, rows: set[int], condition: Condition) -> int:
        return len({one.row for one in find_rows_where(self._catalogue, self._space.id, sorted(rows), condition)})

    def _listed_first(self, terms: Terms) -> tuple[set[int], dict[str, Any]] | None:
        """What satisfies the condition, as `_listed` gives it, where that are few and the database leads to them."""
        return self._listed(terms, max(LISTED_FIRST, len(self._matrix) // 32), PATIENCE_FIRST)

    def _listed_after(self, terms: Terms, held: int, seen: int, wanted: int) -> tuple[set[int], dict[str, Any]] | None:
        """What satisfies the condition, as `_listed` gives it, where listing it is the best next step.

        ``held`` of the ``seen`` nearest rows did. After a vector index, a scan of all rows would come next: where few
        rows hold, those that do are listed instead, unless they turn out to be more than `LISTED`.
        """
        is_exact = self._vectors.recipe == "exact"
        if wanted >= (SIFTED if is_exact else TRIED):
            return self._listed(terms)
        if is_exact or held >= RARE * seen:
            return None
        return self._listed(terms, LISTED, max(PATIENCE, len(self._matrix) // 8))

    def _listed(
        self, terms: Terms, most: int | None = None, patience: int | None = None
    ) -> tuple[set[int], dict[str, Any]] | None:
        """The documents that satisfy the condition, and what that restricts the search to; see `list_documents`."""
        assert terms.condition is not None
        found = list_documents(self._catalogue, terms.condition, most=most, patience=patience)
        if found is None:
            return None
        documents, contents = found
        _, rows = self.owners.of_contents(contents)
        if terms.modalities is not None:
            rows = rows[self.owners.are_of_modalities(rows, terms.modalities)]
        return set(documents.tolist()), {"only": rows}

    def first_wanted(self, need: int, kind: Kind, alpha: float) -> int:
        """How many rows the first vector search asks for."""
        is_corrected = alpha and self._background.corrects(kind) and self._vectors.recipe == "exact"
        return max(2 * need + 8, CORRECTED if is_corrected else FIRST)

    def looked_up(
        self, found: Sequence[Neighbours], need: int, kind: Kind, alphas: FloatArray
    ) -> dict[int, list[Found]]:
        """By row, the segments of the first answers to many questions, from one query of the catalogue; ``alphas``:
        of each."""
        rows: set[int] = set()
        for one, alpha in zip(found, alphas.tolist(), strict=True):
            order = np.lexsort((one.rows, -(one.scores + self.corrections(one.rows, alpha, kind))))
            rows.update(one.rows[order[: need + AHEAD]].tolist())
        by_row: dict[int, list[Found]] = {row: [] for row in rows}
        for segment in self._catalogue.find_rows(self._space.id, sorted(rows)):
            by_row[segment.row].append(segment)
        return by_row

    def _segments(self, rows: Sequence[int], first: First | None) -> list[Found]:
        known = {} if first is None else first.segments
        missing = [row for row in rows if row not in known]
        found = [segment for row in rows if row in known for segment in known[row]]
        return found + self._catalogue.find_rows(self._space.id, missing) if missing else found

    def among(
        self, vector: FloatArray, documents: Sequence[int], bonus: Callable[[int, int], float], terms: Terms, most: int
    ) -> list[Candidate]:
        """The best of some ``documents``: ``most`` of them, best first. ``bonus``: of a document and a row."""
        holders, contents = contents_of_documents(self._catalogue, documents)
        places, rows = self.owners.of_contents(contents)
        holders = holders[places]
        if terms.modalities is not None:
            inside = self.owners.are_of_modalities(rows, terms.modalities)
            holders, rows = holders[inside], rows[inside]
        shows, demotions = self.judged(rows, terms)
        keep = ~shows
        if terms.condition is not None:
            holds = documents_where(self._catalogue, terms.condition, holders[keep].tolist())
            keep &= np.isin(holders, list(holds))
        holders, rows, demotions = holders[keep], rows[keep], demotions[keep]
        cosines = self.scores(vector, rows)
        corrections = self.corrections(rows, terms.alpha, terms.kind)
        pairs = zip(holders.tolist(), rows.tolist(), strict=True)
        bonuses = np.array([bonus(holder, row) for holder, row in pairs], dtype=np.float32)
        order = np.lexsort((rows, holders, -(cosines + corrections + bonuses + demotions)))
        firsts = order[np.sort(np.unique(holders[order], return_index=True)[1])][:most]
        wanted = {(int(holders[i]), int(rows[i])): i for i in firsts}
        found = [
            Candidate(one, float(cosines[i]), float(corrections[i]), float(bonuses[i]), excluded=float(demotions[i]))
            for one in self._catalogue.find_rows(self._space.id, [int(row) for row in set(rows[firsts].tolist())])
            if (i := wanted.get((one.document_id, one.row))) is not None
        ]
        return best_segments(found)

    def scores(self, vector: FloatArray, rows: RowArray) -> FloatArray:
        """Cosines of some rows."""
        return self.scores_of_each([vector], rows)[0]

    def scores_of_each(self, vectors: Sequence[FloatArray], rows: RowArray) -> list[FloatArray]:
        """Cosines of some rows with each of a few vectors, a block of rows at a time."""
        scores = [np.zeros(len(rows), dtype=np.float32) for _ in vectors]
        for start in range(0, len(rows), 8192):
            block = self._matrix[rows[start : start + 8192]].astype(np.float32)
            for each, vector in zip(scores, vectors, strict=True):
                each[start : start + 8192] = block @ vector
        return scores

    def corrections(self, rows: RowArray, alpha: float, kind: Kind) -> FloatArray:
        """What hubness takes off the scores of rows, 0 or less."""
        corrections: FloatArray = 0 - np.float32(alpha) * self._background.hubness_of(rows, kind)
        return corrections

    def _allowed_rows(self, terms: Terms) -> dict[str, Any]:
        if terms.modalities is None:
            return {"without": self._dead} if len(self._dead) else {}
        return {"only": self.owners.of_modalities(terms.modalities)}

    def judged(self, rows: RowArray, terms: Terms) -> tuple[npt.NDArray[np.bool_], FloatArray]:
        """Which rows show something that is excluded, and what the doubt takes off the scores of each."""
        concepts = [*terms.excluded, *([] if terms.wanted is None or not terms.excluded else [terms.wanted])]
        scores = self.scores_of_each([vector for vector, _ in concepts], rows)
        return judge_excluded(scores, len(rows), terms.excluded, terms.wanted)

    def _documents(
        self, neighbours: Neighbours, need: int, terms: Terms, documents: set[int] | None, more: bool
    ) -> list[Candidate]:
        """The best segments of the documents behind rows, best corrected row first, until ``need`` are there.

        ``documents``: those that may answer, where they are known already. Where they are not, and there are ``more``
        rows than these, it gives up as soon as these will hardly do.
        """
        rows, cosines = neighbours.rows, neighbours.scores
        corrections = self.corrections(rows, terms.alpha, terms.kind)
        places = np.lexsort((rows, -(cosines + corrections)))
        shows, demotions = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=np.float32)
        if terms.excluded:  # what follows the nearest rows is judged where it is reached
            near = places[:CORRECTED]
            shows[near], demotions[near] = self.judged(rows[near], terms)
            near = near[np.lexsort((rows[near], -(cosines + corrections + demotions)[near]))]
            places = np.concatenate([near, places[CORRECTED:]])
        found: list[Candidate] = []
        known: set[int] = set()
        start, step = 0, need + AHEAD
        while start < len(places) and len(known) < need:
            part = places[start : start + step]
            if terms.excluded and start + step > CORRECTED:
                shows[part], demotions[part] = self.judged(rows[part], terms)
            start += len(part)
            part = part[~shows[part]]
            of_row = dict(zip(rows[part].tolist(), part.tolist(), strict=True))
            if terms.condition is not None and documents is None:
                segments = find_rows_where(self._catalogue, self._space.id, list(of_row), terms.condition)
            else:
                segments = self._segments(list(of_row), terms.first)
            if documents is not None:
                segments = [one for one in segments if one.document_id in documents]
            for one in segments:
                place = of_row[one.row]
                found.append(
                    Candidate(one, float(cosines[place]), float(corrections[place]), excluded=float(demotions[place]))
                )
                known.add(one.document_id)
            step *= 2
            if known:  # where few of many rows hold, doubling would look up far more than are missing
                step = min(step, max(need + AHEAD, int(1.5 * (need - len(known)) * start / len(known))))
            is_sifting = more and documents is None and terms.condition is not None
            if is_sifting and start >= TRIED and 2 * len(known) * len(places) < need * start:
                break
        return best_segments(found)


def best_segments(found: list[Candidate]) -> list[Candidate]:
    """One segment a document, its best; best document first, ties by document."""
    best: dict[int, Candidate] = {}
    for one in sorted(found, key=lambda c: (-c.total, c.segment.document_id, c.segment.ordinal)):
        best.setdefault(one.segment.document_id, one)
    return list(best.values())
