"""What a question means for one state of an index: its vector, the terms under which rows may answer, and the spread of
its scores.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import Modality
from mmsearch.filters import And, Not, OneOf, Phrase
from mmsearch.models.encoders.base import FloatArray
from mmsearch.query.calibrate.calibration import Background, Group, Kind
from mmsearch.query.candidates import Candidates, First, Terms
from mmsearch.query.exclusion import Spread, scores_over
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import EncodedQuestion, Question
from mmsearch.store.local.catalogue import RowArray, Space
from mmsearch.store.local.catalogue.matching import Condition
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.where import register_functions, to_condition

SAMPLE = 1024
"""Rows that tell how the scores of a question are spread."""


class Meaning:
    """Reads questions. Any number of threads may use it."""

    def __init__(
        self, index: IndexDirectory, space: Space, matrix: npt.NDArray[np.float16], background: Background,
        candidates: Candidates,
    ) -> None:  # fmt: skip
        self._index, self._matrix, self._background, self._candidates = index, matrix, background, candidates
        self.present = index.catalogue.modalities(space.id)
        """The modalities that there are."""
        self._sampling = threading.Lock()
        self._samples: dict[Group, FloatArray] = {}
        self._sampled: dict[Group, RowArray] = {}
        self._connections = threading.local()

    def modalities(self, question: Question, options: SearchOptions) -> tuple[Modality, ...] | None:
        """The kinds that may answer; ``None`` where that leaves out nothing that is there."""
        allowed = options.modalities or question.modalities or ("image", "video")
        return None if self.present <= set(allowed) else tuple(sorted(set(allowed)))

    def condition(self, question: Question, only: Sequence[Modality] | None = None) -> Condition | None:
        """Filters and phrases, and ``only`` some modalities, as one condition; ``None`` where there are none."""
        parts = [
            *question.filters,
            *map(Phrase, question.exact),
            *(Not(Phrase(words)) for words in question.excluded),
            *(() if only is None else (OneOf("modality", tuple(only)),)),
        ]
        if not parts:
            return None
        self._register_functions()
        return to_condition(And(tuple(parts)))

    def _register_functions(self) -> None:
        """Teaches this thread's connection the functions of the filters, once."""
        connection = self._index.catalogue.sql
        if getattr(self._connections, "taught", None) is not connection:
            register_functions(connection)
            self._connections.taught = connection

    def terms(self, asked: EncodedQuestion, options: SearchOptions, first: First | None) -> Terms:
        """Under which terms rows may answer; ``first``: what a batch has looked up already."""
        modalities = self.modalities(asked.question, options)
        group: Group = "text" if modalities == ("text",) else "visual"
        excluded = [(vector, Spread.of(vector, self.sample(group))) for vector in asked.excluded]
        wanted, alpha = None, 0.0
        if not asked.is_listing:
            vector = self.vector(asked)
            alpha = options.hubness * float(self._background.weights(vector[None], kind_of(asked))[0])
            wanted = (vector, Spread.of(vector, self.sample(group))) if excluded else None
        return Terms(
            kind=kind_of(asked),
            modalities=modalities,
            condition=self.condition(asked.question),
            excluded=tuple(excluded),
            wanted=wanted,
            alpha=alpha,
            first=first,
        )

    def vector(self, asked: EncodedQuestion) -> FloatArray:
        """The vector of a question; texts and images mixed are first brought to the same spread of scores."""
        if not len(asked.texts) or not len(asked.images):
            return asked.vector()
        sample = self.sample("visual")
        spreads = [np.mean([Spread.of(row, sample).deviation for row in rows]) for rows in (asked.texts, asked.images)]
        return asked.vector(float(spreads[1] / spreads[0]))

    def deviation(self, vector: FloatArray, group: Group, terms: Terms) -> float:
        """The standard deviation of a vector's corrected scores over the index."""
        sample = self.sample(group)
        if len(sample) < 2:
            return 1.0
        totals = scores_over(sample, vector) + self._candidates.corrections(
            self._sampled[group], terms.alpha, terms.kind
        )
        return max(float(totals.std()), 1e-6)

    def sample(self, group: Group) -> FloatArray:
        """Some rows of pictures or of passages, (rows, dim) float32; always the same ones."""
        with self._sampling:
            if group not in self._samples:
                kinds: list[Modality] = ["text"] if group == "text" else ["image", "video"]
                rows = self._candidates.owners.of_modalities(kinds)
                if len(rows) > SAMPLE:
                    rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
                self._sampled[group] = rows
                self._samples[group] = self._matrix[rows].astype(np.float32)
            return self._samples[group]


def kind_of(asked: EncodedQuestion) -> Kind:
    """A question with an image in it has scores like an image's: images lie nearer to each other."""
    return "image" if len(asked.images) else "text"


def group_of(modalities: Sequence[Modality] | None) -> Group:
    """Passages alone, or pictures (and maybe passages too)."""
    return "text" if modalities is not None and tuple(modalities) == ("text",) else "visual"
