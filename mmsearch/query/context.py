"""What a query means for one version of a store: its vector, what restricts it, how its scores are corrected.

All of it is worked out once, and the steps after it read it here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mmsearch.core.modalities import Group, is_passages, names_in
from mmsearch.core.types import Modality
from mmsearch.filters import And, Not, OneOf, Phrase, Where
from mmsearch.query.calibrate.calibration import Calibration, Kind
from mmsearch.query.calibrate.fit import TextSpread
from mmsearch.query.exclusion import Concept, Spread, scores_over
from mmsearch.query.options import ALPHA, SearchOptions
from mmsearch.query.question import EncodedQuestion, Question
from mmsearch.store.base import FloatArray, IdArray, Store

SAMPLE = 1024
"""Segments that tell how the scores of a query are spread."""


class Samples:
    """Some segments of a store, pictures or passages, always the same ones; read when they are needed first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._known: dict[Group, tuple[IdArray, FloatArray]] = {}

    def of(self, group: Group) -> tuple[IdArray, FloatArray]:
        """Their ids (n,) and vectors, float32 (n, dim)."""
        with self._guard:
            if group not in self._known:
                ids = self._store.sample(SAMPLE, names_in(group, self._store.modalities))
                self._known[group] = (ids, self._store.vectors(ids))
            return self._known[group]


@dataclass(frozen=True, eq=False)
class Context:
    """``modalities`` ``None``: all that there are. ``vector`` (dim,) of length 1; of a listing without numbers.

    ``excluded``: concepts that must not show, and ``wanted``: what is looked for, each with the spread of its scores.
    ``weights`` (1,): how much hubness counts for this query.
    """

    query: EncodedQuestion
    options: SearchOptions
    store: Store
    calibration: Calibration
    samples: Samples
    modalities: tuple[Modality, ...] | None
    where: Where | None
    vector: FloatArray
    excluded: tuple[Concept, ...]
    wanted: Concept | None
    weights: FloatArray
    by_cosine: bool = False
    """Whether nothing else counts: then no more is looked at than is needed."""

    @classmethod
    def of(
        cls, query: EncodedQuestion, options: SearchOptions, store: Store, calibration: Calibration, samples: Samples
    ) -> Context:
        """That of a query with its vectors."""
        modalities = modalities_allowed(query.question, options, store, is_listing=query.is_listing)
        # Nothing is near to a vector of zeros, and hubness does not count: words alone order what is found.
        vector, weights = np.zeros(query.texts.shape[1], dtype=np.float32), np.zeros(1, dtype=np.float32)
        has_vector = not query.is_listing and not query.is_words_only
        if has_vector:
            vector = vector_of(query, samples)
            weights = calibration.weights(vector[None], kind_of(query))
        sample = samples.of(common_group(modalities))[1] if len(query.excluded) else None
        excluded = () if sample is None else tuple((one, Spread.of(one, sample)) for one in query.excluded)
        wanted = (vector, Spread.of(vector, sample)) if sample is not None and has_vector else None
        where = where_of(query.question, modalities)
        return cls(query, options, store, calibration, samples, modalities, where, vector, excluded, wanted, weights)

    @classmethod
    def of_vector(
        cls, vector: FloatArray, kind: Kind, options: SearchOptions, store: Store, calibration: Calibration,
        samples: Samples,
    ) -> Context:  # fmt: skip
        """That of a vector (dim,) of length 1 alone, of which nearness by cosine is all that counts."""
        none = np.zeros((0, len(vector)), dtype=np.float32)
        texts, images = (vector[None], none) if kind == "text" else (none, vector[None])
        query, plain = EncodedQuestion(Question(), texts, images, none), replace(options, hubness=0.0, words=0.0)
        modalities = modalities_allowed(query.question, options, store)
        where, weights = where_of(query.question, modalities), np.zeros(1, dtype=np.float32)
        return cls(
            query, plain, store, calibration, samples, modalities, where, vector, (), None, weights, by_cosine=True
        )

    @property
    def kind(self) -> Kind:
        """What its scores are like."""
        return kind_of(self.query)

    @property
    def group(self) -> Group:
        """What it is compared with."""
        return common_group(self.modalities)

    @property
    def is_plain(self) -> bool:
        """Whether nothing restricts it, so that it can share its search with others."""
        return self.where is None and not self.query.is_listing and not self.query.is_words_only

    @property
    def is_single(self) -> bool:
        """Whether it is one text or one image: of sums, it is not known how their scores are distributed."""
        return self.query.is_words_only or len(self.query.texts) + len(self.query.images) == 1

    @cached_property
    def alpha(self) -> float:
        """The strength of the hubness correction."""
        return self.options.hubness * float(self.weights[0])

    def corrections(self, ids: IdArray) -> FloatArray:
        """What hubness takes off the scores of segments, 0 or less."""
        corrections: FloatArray = 0 - np.float32(self.alpha) * self.calibration.hubness_of(ids, self.kind)
        return corrections

    @cached_property
    def deviation(self) -> float:
        """The standard deviation of its corrected scores over the store."""
        totals = self._sample_scores(self.group)
        return 1.0 if len(totals) < 2 else max(float(totals.std()), 1e-6)

    def _sample_scores(self, group: Group) -> FloatArray:
        ids, sample = self.samples.of(group)
        scores: FloatArray = scores_over(sample, self.vector) + self.corrections(ids) if len(ids) else sample[:, 0]
        return scores

    @cached_property
    def full_bonus(self) -> float:
        """By how much a document rises that has all words of the query."""
        return self.options.words * self.deviation

    @cached_property
    def spread(self) -> TextSpread | None:
        """How the scores of a text are spread over pictures; ``None`` where that is not known, and of images."""
        if self.kind == "image":
            return None
        counts = self.alpha / ALPHA if self.calibration.covered else 0.0
        return self.calibration.spread(self.vector, counts, lambda: self._sample_scores("visual"))


def modalities_allowed(
    question: Question, options: SearchOptions, store: Store, *, is_listing: bool = False
) -> tuple[Modality, ...] | None:
    """The kinds that may be found; ``None`` where that leaves out nothing that is there. A listing has all, unless its
    filters or the options name some.
    """
    if is_listing and options.modalities is None:
        return None
    allowed = set(options.modalities or question.modalities or names_in("visual", store.modalities))
    return None if store.modalities <= allowed else tuple(sorted(allowed))


def of_kinds(store: Store, modalities: Sequence[Modality]) -> Where | None:
    """What restricts a search of a store to some kinds; ``None`` where there are no others."""
    return None if store.modalities <= set(modalities) else where_of(Question(), tuple(modalities))


def where_of(question: Question, modalities: tuple[Modality, ...] | None) -> Where | None:
    """Filters, phrases and kinds as one expression; ``None`` where there are none."""
    parts = [
        *question.filters,
        *map(Phrase, question.exact),
        *(Not(Phrase(words)) for words in question.excluded),
        *(() if modalities is None else (OneOf("modality", modalities),)),
    ]
    return And(tuple(parts)) if parts else None


def vector_of(query: EncodedQuestion, samples: Samples) -> FloatArray:
    """The vector of a query; texts and images mixed are first brought to the same spread of scores."""
    if not len(query.texts) or not len(query.images):
        return query.vector()
    sample = samples.of("visual")[1]
    spreads = [np.mean([Spread.of(row, sample).deviation for row in rows]) for rows in (query.texts, query.images)]
    return query.vector(float(spreads[1] / spreads[0]))


def kind_of(query: EncodedQuestion) -> Kind:
    """A query with an image in it has scores like an image's: images lie nearer to each other."""
    return "image" if len(query.images) else "text"


def common_group(modalities: Sequence[Modality] | None) -> Group:
    """Passages alone, or pictures (and maybe passages too)."""
    return "text" if is_passages(modalities) else "visual"
