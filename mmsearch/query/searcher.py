"""One state of an index, searched: question → candidates → words → near-duplicates → relevance → hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmsearch.core.types import MODALITIES, Hit
from mmsearch.models.encoders.base import FloatArray
from mmsearch.query.by_vector import nearest_documents
from mmsearch.query.calibrate.calibration import Background, Group, Kind, load_background
from mmsearch.query.calibrate.fit import TOGETHER
from mmsearch.query.candidates import Candidate, Candidates, First, best_segments
from mmsearch.query.evidence import Evidence, HoldersOfWords, content_words, find_evidence, lines_read
from mmsearch.query.meaning import Meaning, group_of, kind_of
from mmsearch.query.moments import Moment, fold_duplicates, moment_around
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import EncodedQuestion
from mmsearch.query.rerank import Reranking, rerank_answers, reranking_of
from mmsearch.query.vectors import open_vectors
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.matching import (
    Condition,
    documents_where,
    list_by_date,
    looks_of_documents,
    segments_of_document,
)
from mmsearch.store.local.directory import IndexDirectory

EVIDENCE = 2_000
"""Documents with words of the question that are compared with it, the ones with most of them first."""


class Searcher:
    """Searches one state of an index; open another one to see what was committed since.

    Any number of threads may search at once.
    """

    def __init__(self, index: IndexDirectory, background: Background | None = None) -> None:
        self._index = index
        self._space: Space = index.space()
        self._vectors = open_vectors(index, self._space)
        self._matrix = self._vectors.matrix
        self._dead = index.catalogue.dead_rows(self._space.id)
        self._background = background or load_background(index, self._space)
        self._candidates = Candidates(
            index.catalogue, self._space, self._vectors, self._matrix, self._background, self._dead
        )
        self._meaning = Meaning(index, self._space, self._matrix, self._background, self._candidates)

    def search(self, asked: EncodedQuestion, options: SearchOptions, reranking: Reranking | None = None) -> list[Hit]:
        """The best segment of each of the k best documents, best first; a listing is ordered by date."""
        return self._answer(asked, options, None, reranking)

    def search_many(
        self,
        asked: Sequence[EncodedQuestion],
        options: SearchOptions,
        reranking: Reranking | None = None,
        words: HoldersOfWords | None = None,
    ) -> list[list[Hit]]:
        """The answers to many questions; those without conditions share one vector search.

        A reranker orders the answers to questions of texts alone, within its budget for each of them. ``words``: what
        several calls share, see `mmsearch.query.evidence.find_evidence`.
        """
        plain = [place for place, one in enumerate(asked) if self._is_plain(one, options)]
        first: dict[int, First] = {}
        words = {} if words is None else words
        for kind in ("text", "image"):
            places = [place for place in plain if kind_of(asked[place]) == kind]
            if places and self._space.row_count:
                without = {"without": self._dead} if len(self._dead) else {}
                vectors = np.stack([self._meaning.vector(asked[place]) for place in places])
                wanted = self._candidates.first_wanted(_need(options), kind, options.hubness)
                found = self._vectors.search(vectors, wanted, kind=kind, **without)  # type: ignore[arg-type]
                alphas = options.hubness * self._background.weights(vectors, kind)
                segments = self._candidates.looked_up(found, _need(options), kind, alphas)
                first.update((place, First(one, segments, words)) for place, one in zip(places, found, strict=True))
        return [self._answer(one, options, first.get(place), reranking) for place, one in enumerate(asked)]

    def nearest(self, queries: FloatArray, kind: Kind, options: SearchOptions) -> list[list[Hit]]:
        """The nearest documents to each of ``queries``, float32 (q, dim) of length 1, by cosine alone."""
        allowed = set(options.modalities or ("image", "video"))
        only = None
        if not self._meaning.present <= allowed:
            only = self._candidates.owners.of_modalities(allowed)
        dead = self._dead if len(self._dead) and only is None else None
        return nearest_documents(
            self._index, self._space.id, self._vectors, queries, kind, options.k, only=only, without=dead
        )

    @property
    def space(self) -> Space:
        """Whose vectors are searched; another encoder, or another file, has other vectors in the same rows."""
        return self._space

    def candidates(self, asked: EncodedQuestion, options: SearchOptions, need: int) -> list[Candidate]:
        """The documents that come into question, best first, before anything is folded or left out."""
        return self._ranked(asked, options, need, None)

    def vector_of(self, asked: EncodedQuestion) -> FloatArray:
        """The one vector of a question, (dim,) of length 1."""
        return self._meaning.vector(asked)

    def judge(
        self, asked: EncodedQuestion, options: SearchOptions, document: int
    ) -> tuple[Candidate, float | None, tuple[str, ...], bool]:
        """One document under a question, whether or not it would be found.

        Its best segment with the parts of its score, its relevance, which excluded phrases it shows, and whether
        the filters say yes.
        """
        terms = replace(self._meaning.terms(asked, options, None), condition=None, excluded=(), modalities=None)
        vector = self._meaning.vector(asked)
        evidence = find_evidence(self._index.catalogue, self._space.id, asked.question.texts)
        group = group_of(self._meaning.modalities(asked.question, options))
        most = options.words * self._meaning.deviation(vector, group, terms)
        [one] = self._candidates.among(
            vector, [document], lambda holder, row: evidence.bonus(holder, row, most), terms, 1
        )
        conditions = self._meaning.terms(asked, options, None)
        row = np.array([one.segment.row], dtype=np.int64)
        one = one._replace(excluded=float(self._candidates.judged(row, conditions)[1][0]))
        shown = tuple(
            phrase
            for phrase, each in zip(asked.question.excluded, conditions.excluded, strict=True)
            if self._candidates.judged(row, replace(conditions, excluded=(each,)))[0][0]
        )
        condition = self._meaning.condition(asked.question)
        allowed = condition is None or bool(documents_where(self._index.catalogue, condition, [document]))
        return one, self._relevance(asked, [one], options)[0], shown, allowed

    def _answer(
        self, asked: EncodedQuestion, options: SearchOptions, first: First | None, reranking: Reranking | None
    ) -> list[Hit]:
        if asked.is_listing:
            return self._listing(asked, options)
        need = _need(options)
        reranking = reranking_of(asked.question, reranking)
        if reranking is not None:
            need, first = max(need, options.rerank_depth), None
        while True:
            ranked = self._ranked(asked, options, need, first)
            groups = self._groups(ranked, options)
            if len(groups) >= options.k or len(ranked) < need:
                break
            need, first = need * 4, None
        if reranking is not None:  # once, whatever the groups took: its time is limited
            ranked = rerank_answers(reranking, self._index, self._space, asked.question, ranked, options)
            groups = self._groups(ranked, options)
        relevance = self._relevance(asked, ranked, options)
        hits: list[Hit] = []
        for members in groups[: options.k]:
            known = relevance[members[0]]
            if options.min_relevance is None or known is None or known >= options.min_relevance:
                hits.append(self._hit(asked, ranked, members, relevance, len(hits) + 1))
        floor = options.nothing_below
        if floor is not None and all(hit.relevance is not None and hit.relevance < floor for hit in hits):
            together = self._relevance_together(asked, ranked)
            return hits if together is not None and together >= floor else []
        return hits

    def _is_plain(self, asked: EncodedQuestion, options: SearchOptions) -> bool:
        is_free = not asked.question.filters and not asked.question.exact and not asked.question.excluded
        return not asked.is_listing and is_free and self._meaning.modalities(asked.question, options) is None

    # The ranking

    def _ranked(
        self, asked: EncodedQuestion, options: SearchOptions, need: int, first: First | None
    ) -> list[Candidate]:
        vector = self._meaning.vector(asked)
        terms = self._meaning.terms(asked, options, first)
        ranked = self._candidates.best(vector, need, terms)
        evidence = Evidence({}, ())
        if options.words:
            evidence = find_evidence(self._index.catalogue, self._space.id, asked.question.texts, first and first.words)
        if not evidence.shares:
            return ranked
        most = options.words * self._meaning.deviation(vector, group_of(terms.modalities), terms)
        strongest = sorted(evidence.shares, key=lambda document: -evidence.shares[document])[:EVIDENCE]
        known = set(strongest)
        ranked = [one for one in ranked if one.segment.document_id not in known]
        risen = self._candidates.among(
            vector, strongest, lambda document, row: evidence.bonus(document, row, most), terms, need
        )
        return best_segments([*ranked, *risen])

    def _groups(self, ranked: Sequence[Candidate], options: SearchOptions) -> list[list[int]]:
        """Places that become one hit each, with their near-duplicates where those are folded."""
        if not options.collapse:
            return [[place] for place in range(len(ranked))]
        pictures = [one.segment.document_id for one in ranked if one.segment.modality == "image"]
        looks = looks_of_documents(self._index.catalogue, pictures)
        vectors = self._matrix[[one.segment.row for one in ranked]].astype(np.float32)
        return fold_duplicates(vectors, [looks.get(one.segment.document_id) for one in ranked])

    def _relevance(
        self, asked: EncodedQuestion, ranked: Sequence[Candidate], options: SearchOptions
    ) -> list[float | None]:
        """The calibrated relevance of each candidate; all words of the question in its texts are relevance too."""
        kind = kind_of(asked)
        found: list[float | None] = [None] * len(ranked)
        if len(asked.texts) + len(asked.images) > 1:
            return found  # nothing is known of how scores of sums are distributed
        for group in ("visual", "text"):
            places = [i for i, one in enumerate(ranked) if group_of((one.segment.modality,)) == group]
            if not places:
                continue
            shares = self._background.relevance(kind, group, self._fits(asked, [ranked[i] for i in places], group))
            for place, share in zip(places, [] if shares is None else shares.tolist(), strict=False):
                found[place] = share
        if options.words and any(one.words for one in ranked):
            terms = self._meaning.terms(asked, options, None)
            most = options.words * self._meaning.deviation(
                self._meaning.vector(asked), group_of(terms.modalities), terms
            )
            most = float(np.float32(most))  # as the bonuses are
            found = [
                value if not one.words else max(value or 0.0, min(1.0, one.words / most))
                for value, one in zip(found, ranked, strict=True)
            ]
        return found

    def _fits(self, asked: EncodedQuestion, some: Sequence[Candidate], group: Group) -> FloatArray:
        """How well candidates of one group fit a question of one text or image."""
        rows = np.array([one.segment.row for one in some], dtype=np.int64)
        cosines = np.array([one.cosine for one in some], dtype=np.float32)
        return self._background.fits(kind_of(asked), group, self._meaning.vector(asked), rows, cosines)

    def _relevance_together(self, asked: EncodedQuestion, ranked: Sequence[Candidate]) -> float | None:
        """How relevant the first pictures, or else passages, are together."""
        if not ranked or len(asked.texts) + len(asked.images) > 1:
            return None
        group: Group = "visual" if any(one.segment.modality != "text" for one in ranked) else "text"
        first = [one for one in ranked if group_of((one.segment.modality,)) == group][:TOGETHER]
        return self._background.relevance_together(kind_of(asked), group, self._fits(asked, first, group))

    # Hits

    def _listing(self, asked: EncodedQuestion, options: SearchOptions) -> list[Hit]:
        """Documents by date: everything is listed that the conditions allow, of any kind unless one is named."""
        terms = self._meaning.terms(asked, replace(options, modalities=options.modalities or MODALITIES), None)
        if asked.question.modalities is not None and options.modalities is None:
            terms = replace(terms, modalities=None)  # the filter itself says it
        condition = self._meaning.condition(asked.question, terms.modalities) or Condition("TRUE", {})
        hits: list[Hit] = []
        page, offset = max(2 * options.k, 64), 0
        while len(hits) < options.k:
            found = list_by_date(self._index.catalogue, self._space.id, condition, page, offset)
            rows = np.array([one.row for one in found], dtype=np.int64)
            shows, _ = self._candidates.judged(rows, terms)
            for one, hidden in zip(found, shows, strict=True):
                if not hidden and len(hits) < options.k:
                    hits.append(
                        Hit(len(hits) + 1, 0.0, self._index.path_of(one), one.modality, one.ordinal, text=one.text)
                    )
            if len(found) < page:
                break
            offset += page
        return hits

    def _hit(
        self, asked: EncodedQuestion, ranked: Sequence[Candidate], members: list[int],
        relevance: Sequence[float | None], rank: int,
    ) -> Hit:  # fmt: skip
        one = ranked[members[0]]
        segment = one.segment
        moment = self._moment(asked, one) if segment.modality == "video" else None
        return Hit(
            rank=rank,
            score=one.cosine,
            path=self._index.path_of(segment),
            modality=segment.modality,
            segment=segment.ordinal,
            start_s=segment.start_s if moment is None else moment.start_s,
            end_s=segment.end_s if moment is None else moment.end_s,
            text=segment.text,
            relevance=relevance[members[0]],
            best_s=None if moment is None else moment.best_s,
            parts=one.parts,
            duplicates=tuple(self._index.path_of(ranked[place].segment) for place in members[1:]),
            read=self._read(asked, one),
        )

    def _read(self, asked: EncodedQuestion, one: Candidate) -> str | None:
        if not one.words or one.segment.modality == "text":
            return None
        return lines_read(self._index.catalogue, self._space.id, one.segment.row, content_words(asked.question.texts))

    def _moment(self, asked: EncodedQuestion, one: Candidate) -> Moment | None:
        segments = segments_of_document(self._index.catalogue, self._space.id, one.segment.document_id)
        rows = np.array([segment.row for segment in segments], dtype=np.int64)
        scores = self._candidates.scores(self._meaning.vector(asked), rows)
        best = next((i for i, segment in enumerate(segments) if segment.row == one.segment.row), None)
        return None if best is None else moment_around(segments, scores, best)


def _need(options: SearchOptions) -> int:
    """Documents to look for: the first ones speak together for an index, and near-duplicates take places."""
    return max(options.k, TOGETHER) if not options.collapse else options.k + 8
