"""What "without" means for pictures: which ones show a concept too clearly to answer, and which may show it.

Scores are read as standard deviations from their mean over the index, because a cosine alone tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmsearch.models.encoders.base import FloatArray

PRESENT = 2.5
"""A row shows an excluded concept that reaches so many standard deviations there, and more than what is wanted does."""
DOUBTFUL = 1.0
"""From so many standard deviations on it may show it, and falls …"""
DEMOTION = 0.6
"""… by so many standard deviations of the wanted scores for each further one. Chosen on objects of Flickr8k dev."""


def scores_over(sample: FloatArray, vector: FloatArray) -> FloatArray:
    """Scores of a vector over a sample of rows; einsum takes one core: two cores that wait for each other take longer
    than these few numbers."""
    scores: FloatArray = np.einsum("ij,j->i", sample, vector)
    return scores


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and standard deviation of a vector's scores over a sample of the index."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, vector: FloatArray, sample: FloatArray) -> Spread:
        """``sample`` (rows, dim) float32; with too few rows, one that no score is far from."""
        if len(sample) < 2:
            return cls(0.0, 1.0)
        scores = scores_over(sample, vector)
        return cls(float(scores.mean()), max(float(scores.std()), 1e-6))

    def standardised(self, scores: FloatArray) -> FloatArray:
        """Scores as standard deviations from the mean."""
        levels: FloatArray = (scores - np.float32(self.mean)) / np.float32(self.deviation)
        return levels


Concept = tuple[FloatArray, Spread]
"""A vector with the spread of its scores."""


def judge_excluded(
    scores: Sequence[FloatArray], count: int, excluded: Sequence[Concept], wanted: Concept | None
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Which of ``count`` rows show something ``excluded``, and what the doubt takes off the scores of each, 0 or less.

    ``scores``: those of the rows with each excluded vector, then with the wanted one. Without something ``wanted``
    nothing competes, and nothing falls.
    """
    shows, demotions = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.float32)
    if not excluded or not count:
        return shows, demotions
    rival = np.full(count, -np.inf, dtype=np.float32) if wanted is None else wanted[1].standardised(scores[-1])
    for (_, spread), found in zip(excluded, scores, strict=False):
        level = spread.standardised(found)
        shows |= (level >= PRESENT) & (level > rival)
        if wanted is not None:
            demotions -= np.float32(DEMOTION * wanted[1].deviation) * np.maximum(level - np.float32(DOUBTFUL), 0)
    return shows, demotions
