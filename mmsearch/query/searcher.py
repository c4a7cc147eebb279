"""One version of a store, searched: context → retrieve → fuse → [rerank] → calibrate → hits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import VectorError
from mmsearch.core.modalities import group_of, has_pictures, spec_of
from mmsearch.core.types import DocumentInfo, Hit
from mmsearch.filters import OneOf, Spoken
from mmsearch.models.encoders.base import Encoder
from mmsearch.query.calibrate.calibration import Calibration, Kind, Matches, load_calibration
from mmsearch.query.calibrate.fit import never_rising
from mmsearch.query.context import Context, Samples, where_of
from mmsearch.query.fuse import (
    Words,
    compared,
    content_words,
    find_evidence,
    fuse,
    lines_read,
    parts_compared,
)
from mmsearch.query.lists import merged, weaker_behind
from mmsearch.query.moments import Moment, fold_duplicates, moment_around, moments_of
from mmsearch.query.nothing import UNREAD, Hits
from mmsearch.query.options import MATCH, SearchOptions
from mmsearch.query.question import EncodedQuestion, Question, encode_questions
from mmsearch.query.rerank import LOG, Reranking, rerank_candidates, reranking_of
from mmsearch.query.retrieve import Candidate, judge, retrieve, retrieve_first
from mmsearch.query.sounds import SoundSearch, without_sounds
from mmsearch.query.spoken import (
    FITS,
    SPEECH,
    is_speech_beside,
    passages_wanted,
    relevance_of_speech,
    time_of_words,
    without_speech,
)
from mmsearch.store.base import FloatArray, Nearest, Segment, Store, scores_of

PART = 512
"""Queries that are encoded, and compared with all vectors, together. Encoding and comparing keep every core busy,
fetching hits only one; larger parts overlap less, smaller ones read all vectors more often."""


class Judgement(NamedTuple):
    """One document under a query of this ``vector``, whether or not it would be found: its best segment with the parts
    of its score, its relevance, which excluded phrases it shows, and whether the filters say yes.
    """

    vector: FloatArray
    best: Candidate
    relevance: float | None
    excluded: tuple[str, ...]
    allowed: bool


class Searcher:
    """Searches one version of a store. Any number of threads may search at once."""

    def __init__(self, store: Store, calibration: Calibration | None = None, sounds: SoundSearch | None = None) -> None:
        """``sounds`` finds what sounds in videos and recordings; without it nothing of that is found."""
        self.store, self._sounds = store, sounds
        store.prepare()
        self._calibration = calibration or load_calibration(store)
        self._samples = Samples(store)

    def search(self, query: EncodedQuestion, options: SearchOptions, reranking: Reranking | None = None) -> list[Hit]:
        """The best segment of each of the k best documents, best first; a listing is ordered by date."""
        return self._hits(self._context(query, options), None, {}, reranking)

    def search_many(
        self,
        queries: Sequence[EncodedQuestion],
        options: SearchOptions,
        reranking: Reranking | None = None,
        words: Words | None = None,
    ) -> list[list[Hit]]:
        """The hits of many queries; those without conditions share one vector search.

        A reranker orders the hits of queries of texts alone, within its budget for each of them. ``words``: what
        several calls share, see `mmsearch.query.fuse.find_evidence`.
        """
        contexts = [self._context(query, options) for query in queries]
        first: dict[int, Nearest] = {}
        for kind in ("text", "image"):
            places = [i for i, context in enumerate(contexts) if context.is_plain and context.kind == kind]
            found = retrieve_first([contexts[i] for i in places], _need(options))
            first.update(zip(places, found, strict=True))
        known: Words = {} if words is None else words
        return [self._hits(context, first.get(i), known, reranking) for i, context in enumerate(contexts)]

    def nearest(self, vectors: FloatArray, kind: Kind, options: SearchOptions) -> list[list[Hit]]:
        """The nearest documents to each of ``vectors``, float32 (q, dim) of length 1, by cosine alone.

        This is what the recall in `status` is about, so anyone can check it.
        """
        contexts = [
            Context.of_vector(vector, kind, options, self.store, self._calibration, self._samples) for vector in vectors
        ]
        found = retrieve_first(contexts, options.k)
        return [
            [_plain_hit(one, rank) for rank, one in enumerate(retrieve(context, options.k, near)[: options.k], start=1)]
            for context, near in zip(contexts, found, strict=True)
        ]

    def judge(self, query: EncodedQuestion, options: SearchOptions, document: int) -> Judgement:
        """One document under a query."""
        context, question = self._context(query, options), query.question
        seen = tuple(sorted(self.store.modalities - {SPEECH})) if SPEECH in self.store.modalities else None
        free = replace(context, where=None, modalities=seen, excluded=(), wanted=None)
        evidence = find_evidence(self.store, question.texts)
        [best] = compared(free, [document], evidence, context.full_bonus, 1)
        ids = np.array([best.segment.id], dtype=np.int64)
        best = best._replace(excluded=float(judge(context, ids)[1][0]))
        shown = tuple(
            phrase
            for phrase, concept in zip(question.excluded, context.excluded, strict=True)
            if judge(replace(context, excluded=(concept,)), ids)[0][0]
        )
        where = where_of(question, None)
        allowed = where is None or bool(self.store.matching([document], where))
        return Judgement(context.vector, best, self._relevance(context, [best])[0], shown, allowed)

    def judge_speech(self, query: EncodedQuestion, options: SearchOptions, document: int) -> Hit | None:
        """The passage of a document that fits a query in words best, whether or not it would be found; ``None`` where
        nothing is said in it.
        """
        if SPEECH not in self.store.modalities or not query.question.texts:
            return None
        context = replace(self._context(query, replace(options, modalities=(SPEECH,))), where=None, excluded=())
        evidence = find_evidence(self.store, query.question.texts)
        best = compared(context, [document], evidence, context.full_bonus, 1)
        return self._hit(context, best, [0], self._relevance(context, best)[0], 1, {}) if best else None

    def moments(self, query: EncodedQuestion, options: SearchOptions, document: int) -> list[Hit]:
        """Where in one video or recording a query matches, best first: stretches of its pictures, and passages of what
        is said in it, so far as they fit. Filters and near-duplicates do not count.
        """
        sampled = tuple(sorted(name for name in self.store.modalities if spec_of(name).is_sampled))
        evidence = find_evidence(self.store, query.question.texts)
        seen: list[Hit] = []
        if sampled:
            context = replace(self._context(query, replace(options, modalities=sampled)), where=None)
            frames = parts_compared(context, document, evidence, context.full_bonus)
            found = moments_of([one.segment for one in frames], np.array([one.cosine for one in frames], np.float32))
            found.sort(key=lambda one: -frames[one[0]].total)
            seen = self._moments(context, [frames[place] for place, _ in found], [moment for _, moment in found])
        if SPEECH not in self.store.modalities or not query.question.texts:
            return seen[: options.k]
        context = replace(self._context(query, replace(options, modalities=(SPEECH,))), where=None)
        passages = parts_compared(context, document, evidence, context.full_bonus)
        passages.sort(key=lambda one: -one.total)
        said = self._moments(context, passages, None)
        is_all_there_is = not seen  # of a recording, the nearest passages too
        fitting = [hit for hit in said if is_all_there_is or hit.relevance is None or hit.relevance >= FITS]
        return weaker_behind(merged(seen, fitting, options.k))

    def _moments(self, context: Context, ranked: list[Candidate], moments: Sequence[Moment] | None) -> list[Hit]:
        relevance = never_rising(self._relevance(context, ranked))
        known = self.store.describe(list({one.segment.document for one in ranked}))
        return [
            self._hit(context, ranked, [place], value, place + 1, known, None if moments is None else moments[place])
            for place, value in enumerate(relevance)
        ]

    def judge_sounds(self, query: EncodedQuestion, document: int) -> Hit | None:
        """The window of sound of a document that fits a query in words best, whether or not it would be found; ``None``
        where nothing is known to sound in it.
        """
        return None if self._sounds is None else self._sounds.judge(self.store, query.question, document)

    # The line

    def _context(self, query: EncodedQuestion, options: SearchOptions) -> Context:
        return Context.of(query, options, self.store, self._calibration, self._samples)

    def _hits(self, context: Context, first: Nearest | None, words: Words, reranking: Reranking | None) -> list[Hit]:
        question, options = context.query.question, context.options
        sounds = [] if self._sounds is None else self._sounds.find(self.store, question, options)
        others = options if context.query.is_listing else without_sounds(question, options)
        if others is None:
            return sounds
        found = self._seen_or_said(
            context if others is options else self._context(context.query, others), first, words, reranking
        )
        return weaker_behind(merged(found, sounds, options.k) if sounds else found)

    def _seen_or_said(
        self, context: Context, first: Nearest | None, words: Words, reranking: Reranking | None
    ) -> list[Hit]:
        question, options = context.query.question, context.options
        wanted = passages_wanted(question)
        if wanted or (context.query.is_listing and context.modalities == (SPEECH,)):
            return self._said(context, wanted)
        if context.query.is_listing:
            return self._listing(context)
        if not is_speech_beside(question, options, self.store):
            return self._found(context, first, words, reranking)
        pictures = self._context(context.query, without_speech(question, options, self.store))
        found = self._found(pictures, first, words, reranking)
        spoken = self._context(context.query, replace(options, modalities=(SPEECH,)))
        if question.exact:
            return merged(found, self._said(spoken, [Spoken(words=phrase) for phrase in question.exact]), options.k)
        said = self._found(spoken, None, words, None)
        return merged(found, [hit for hit in said if hit.relevance is None or hit.relevance >= FITS], options.k)

    def _said(self, context: Context, wanted: Sequence[Spoken]) -> list[Hit]:
        """The passages of which ``wanted`` is true, several of one document too: the best for the words of the query,
        or, where it has none, in the order of their times.
        """
        ids = self.store.spoken(wanted)
        question, k = context.query.question, context.options.k
        named = question.modalities
        kinds = None if named is None or SPEECH in named else OneOf("modality", named)  # ``type:video`` means where
        ids = ids[~judge(context, ids)[0]]
        cosines = np.zeros(len(ids), dtype=np.float32)
        if not context.query.is_listing:
            [cosines] = scores_of(self.store, ids, [context.vector])
            order = np.lexsort((ids, -cosines))
            ids, cosines = ids[order], cosines[order]
        found: list[Candidate] = []
        for start in range(0, len(ids), max(4 * k, 64)):
            part = slice(start, start + max(4 * k, 64))
            scores = dict(zip(ids[part].tolist(), cosines[part].tolist(), strict=True))
            segments = self.store.fetch(list(scores), context.where)
            if kinds is not None:
                theirs = self.store.matching([one.document for one in segments], kinds)
                segments = [one for one in segments if one.document in theirs]
            found += sorted(
                (Candidate(segment, scores[segment.id], 0.0) for segment in segments),
                key=lambda one: (-one.cosine, one.segment.path, one.segment.start_s or 0.0),
            )
            if len(found) >= k and not context.query.is_listing:
                break
        if context.query.is_listing:
            found.sort(key=lambda one: (one.segment.path, one.segment.start_s or 0.0))
        shown = found[:k]
        relevance = [None] * k if context.query.is_listing else never_rising(self._relevance(context, shown))
        known = self.store.describe([one.segment.document for one in shown])
        hits = [self._hit(context, shown, [place], relevance[place], place + 1, known) for place in range(len(shown))]
        if context.query.is_listing:
            hits = [replace(hit, parts={}) for hit in hits]
        speech = self.store.speech([one.segment.id for one in shown])
        phrases = [*question.exact, *(one.words for one in wanted if one.words is not None)]
        return [
            replace(hit, start_s=time_of_words(speech.get(one.segment.id), phrases, hit.start_s))
            for hit, one in zip(hits, shown, strict=True)
        ]

    def _found(self, context: Context, first: Nearest | None, words: Words, reranking: Reranking | None) -> list[Hit]:
        options = context.options
        reranking = None if context.query.unread else reranking_of(context.query.question, reranking)
        if reranking is None:
            ranked, groups = self._ranked(context, first, words, _need(options))
        else:
            ranked, _ = self._ranked(context, None, words, max(_need(options), options.rerank_depth))
            # once, whatever the groups took: its time is limited
            ranked = rerank_candidates(reranking, self.store, context.query.question, ranked, options)
            groups = self._groups(ranked, options)
        relevance = never_rising(self._relevance(context, ranked))
        least = max(options.min_relevance or 0.0, MATCH if options.strict else 0.0)
        shown = [(members, relevance[members[0]]) for members in groups[: options.k]]
        shown = [(members, value) for members, value in shown if value is None or value >= least]
        known = self.store.describe([ranked[members[0]].segment.document for members, _ in shown])
        return [
            self._hit(context, ranked, members, value, rank, known) for rank, (members, value) in enumerate(shown, 1)
        ]

    def _ranked(
        self, context: Context, first: Nearest | None, words: Words, need: int
    ) -> tuple[list[Candidate], list[list[int]]]:
        """Candidates, and the places that become one hit each: enough of them before which none is missing, as far as
        there are enough.

        Where many of the nearest are near-duplicates of each other, others that are further away, but nearer than what
        words speak for, have yet to be looked for.
        """
        while True:
            near = [] if context.query.is_words_only else retrieve(context, need, first)
            ranked, floor = fuse(context, near, need, words)
            groups = self._groups(ranked, context.options)
            sure = sum(ranked[members[0]].total >= floor for members in groups)
            if sure >= context.options.k or floor == -math.inf:
                return ranked, groups
            need, first = need * 4, None

    def _groups(self, ranked: Sequence[Candidate], options: SearchOptions) -> list[list[int]]:
        """Places that become one hit each, with their near-duplicates where those are folded."""
        if not options.collapse:
            return [[place] for place in range(len(ranked))]
        looks = self.store.looks([one.segment.document for one in ranked if one.segment.modality == "image"])
        vectors = self.store.vectors(np.array([one.segment.id for one in ranked], dtype=np.int64))
        return fold_duplicates(vectors, [looks.get(one.segment.document) for one in ranked])

    def _relevance(self, context: Context, ranked: Sequence[Candidate]) -> list[float | None]:
        """The calibrated relevance of each candidate; all words of the query in its texts are relevance too."""
        if not context.is_single:
            return [None] * len(ranked)
        relevance = self._calibration.relevance_of(_matches(context, ranked))
        if context.modalities == (SPEECH,):
            count, most = len(content_words(context.query.question.texts)), max(context.full_bonus, 1e-9)
            return [
                relevance_of_speech(share, (one.words / most) ** 0.5, count)
                for share, one in zip(relevance, ranked, strict=True)
            ]
        if context.options.words and any(one.words for one in ranked):
            most = float(np.float32(context.full_bonus))  # as the bonuses are
            relevance = [
                value if not one.words else max(value or 0.0, min(1.0, one.words / most))
                for value, one in zip(relevance, ranked, strict=True)
            ]
        return relevance

    # Hits

    def _listing(self, context: Context) -> list[Hit]:
        """Documents by date: everything is listed that the conditions allow, of any kind unless one is named."""
        hits: list[Hit] = []
        k = context.options.k
        page, offset = max(2 * k, 64), 0
        while len(hits) < k:
            segments = self.store.newest(context.where, page, offset)
            shows, _ = judge(context, np.array([segment.id for segment in segments], dtype=np.int64))
            shown = [segment for segment, hidden in zip(segments, shows, strict=True) if not hidden]
            shown = shown[: k - len(hits)]
            known = self.store.describe([one.document for one in shown])
            hits += (
                Hit(
                    rank, 0.0, one.path, one.modality, one.ordinal, text=one.text, date=one.date,
                    document=known.get(one.document),
                ) for rank, one in enumerate(shown, len(hits) + 1)
            )  # fmt: skip
            if len(segments) < page:
                break
            offset += page
        return hits

    def _hit(
        self, context: Context, ranked: Sequence[Candidate], members: list[int], relevance: float | None, rank: int,
        documents: Mapping[int, DocumentInfo], moment: Moment | None = None,
    ) -> Hit:  # fmt: skip
        best = ranked[members[0]]
        segment = best.segment
        if moment is None and spec_of(segment.modality).is_sampled:
            moment = self._moment(context, segment)
        return Hit(
            rank=rank,
            score=best.total,
            path=segment.path,
            modality=segment.modality,
            segment=segment.ordinal,
            start_s=segment.start_s if moment is None else moment.start_s,
            end_s=segment.end_s if moment is None else moment.end_s,
            text=segment.text,
            relevance=relevance,
            best_s=None if moment is None else moment.best_s,
            parts=best.parts,
            duplicates=tuple(ranked[place].segment.path for place in members[1:]),
            read=self._read(context, best),
            language=self._language(segment),
            match=relevance is None or relevance >= MATCH,
            document=documents.get(segment.document),
        )

    def _language(self, segment: Segment) -> str | None:
        if segment.modality != SPEECH:
            return None
        speech = self.store.speech([segment.id]).get(segment.id)
        return None if speech is None else speech.language

    def _read(self, context: Context, one: Candidate) -> str | None:
        if not one.words or not has_pictures(one.segment.modality):
            return None
        return lines_read(self.store, one.segment.id, content_words(context.query.question.texts))

    def _moment(self, context: Context, best: Segment) -> Moment | None:
        _, ids = self.store.segments([best.document], (best.modality,))
        frames = [one for one in self.store.fetch(ids.tolist()) if one.document == best.document]
        frames.sort(key=lambda frame: frame.ordinal)
        ids = np.array([frame.id for frame in frames], dtype=np.int64)
        [scores] = scores_of(self.store, ids, [context.vector])
        place = next((i for i, frame in enumerate(frames) if frame.id == best.id), None)
        return None if place is None else moment_around(frames, scores, place)


def run_queries(
    searcher: Searcher,
    encoder: Encoder | None,
    questions: Sequence[Question],
    options: SearchOptions,
    reranking: Reranking | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Hits]:
    """The hits of many queries, in their order; as `Searcher.search_many` of all of them.

    Equal ones are searched once; while a part is searched, the next one is encoded. ``encoder`` may be ``None`` where
    no query has anything to encode. Each text is encoded once. ``note`` gets a sentence about texts that the encoder
    cannot read (by default a logger), which is the ``reason`` of those that find nothing for it.
    """
    numbers: dict[Question | int, int] = {}
    unique: list[Question] = []
    places: list[int] = []
    for place, question in enumerate(questions):
        key: Question | int = place if question.images else question  # pictures cannot be told to be equal
        if key not in numbers:
            numbers[key] = len(unique)
            unique.append(question)
        places.append(numbers[key])
    found: list[tuple[list[Hit], str | None]] = []
    words: Words = {}
    # A reranker has a budget of time, which nothing beside it may spend.
    size = PART if reranking is None else max(1, len(unique))
    parts = [unique[i : i + size] for i in range(0, len(unique), size)]
    for part in _encoded(encoder, parts, options.language):
        for unread in filter(None, (query.note for query in part)):
            (note or LOG.warning)(unread)
        reasons = [UNREAD if query.is_words_only else None for query in part]
        found += zip(searcher.search_many(part, options, reranking, words), reasons, strict=True)
    return [Hits(*found[number]) for number in places]


def unit_vectors(vectors: npt.ArrayLike, dim: int) -> FloatArray:
    """(dim,) or (n, dim) numbers as float32 (n, dim) of length 1.

    Raises:
        VectorError: another shape, a value that is not finite, or a vector of length 0.
    """
    try:
        rows = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError(f"a query vector must be numbers of shape ({dim},) or (n, {dim}): {error}") from error
    rows = rows[None, :] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise VectorError(f"expected a vector of shape ({dim},) or vectors (n, {dim}), got {np.shape(vectors)}")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise VectorError("a query vector has length 0, or holds NaN or infinite values")
    unit: FloatArray = rows / lengths
    return unit


def _encoded(
    encoder: Encoder | None, parts: Sequence[Sequence[Question]], language: str | None
) -> Iterator[list[EncodedQuestion]]:
    """The parts, each encoded while the one before it is in use."""
    known: dict[str, FloatArray] = {}
    if len(parts) < 2:
        yield from (encode_questions(encoder, part, known, language) for part in parts)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="mmsearch-encode") as background:
        coming = background.submit(encode_questions, encoder, parts[0], known, language)
        for part in parts[1:]:
            ready, coming = coming.result(), background.submit(encode_questions, encoder, part, known, language)
            yield ready
        yield coming.result()


def _matches(context: Context, some: Sequence[Candidate]) -> Matches:
    """What calibration reads of a query and of candidates."""
    cosines = np.array([one.cosine for one in some], dtype=np.float32)
    totals = np.array([one.total for one in some], dtype=np.float32)
    are_texts = np.array([group_of(one.segment.modality) == "text" for one in some], dtype=bool)
    counted = context.query.telling_words
    words = len(content_words(context.query.question.texts)) if counted is None else counted
    return Matches(context.kind, context.spread, words, cosines, totals, are_texts)


def _plain_hit(one: Candidate, rank: int) -> Hit:
    """One of a search by cosine alone."""
    segment = one.segment
    return Hit(
        rank, one.cosine, segment.path, segment.modality, segment.ordinal, segment.start_s, segment.end_s, segment.text,
        parts={"similarity": one.cosine},
    )  # fmt: skip


def _need(options: SearchOptions) -> int:
    """Documents to look for: near-duplicates take places."""
    return options.k + 8 if options.collapse else options.k
