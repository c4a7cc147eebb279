"""How well questions fit pictures, comparable between questions and between pictures; and how well generic ones do.

A cosine of 0.3 is a good hit for one question and noise for another. The fit of a question and a picture is

    τ · log( e^(s/τ) / (e^(s/τ) + Σ e^(b/τ)) )  +  c − u

``s`` is the cosine of the two, ``b`` those of the picture and each generic caption, ``c`` the score corrected for
hubness and ``u`` what the question usually reaches at best among unrelated photos (`Reference`). So a picture that
generic captions describe better speaks against the question, and a question that finds something everywhere has to
find more. The last two terms are left out where no reference photos ship for an encoder.

τ is the temperature that the encoder was trained with where it is known (CLIP compares texts by softmax). Encoders
that were trained pair by pair (SigLIP) know of no comparison between texts: there, the fit is the corrected score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import FloatArray
from mmsearch.query.calibrate.reference import Reference

TEMPERATURE = np.float32(0.03)
"""Where the encoder does not say its own."""
TOGETHER = 5
"""So many of the first hits speak together for what an index holds."""


@dataclass(frozen=True, eq=False)
class FitScale:
    """What fits of one encoder are measured by. ``temperature`` ``None``: every pair is judged alone."""

    temperature: np.float32 | None
    reference: Reference | None

    @classmethod
    def of(cls, spec: EncoderSpec, reference: Reference | None) -> FitScale:
        """That of an encoder and the reference photos that ship for it, if any do."""
        if spec.score_type == "sigmoid":
            return cls(None, reference)
        return cls(np.float32(1 / spec.logit_scale) if spec.logit_scale else TEMPERATURE, reference)

    @property
    def name(self) -> str:
        """Tells scales apart."""
        return f"{self.temperature} {TOGETHER} {self.reference and self.reference.name}"

    def crowd(self, scores: FloatArray) -> FloatArray:
        """τ log Σ e^(b/τ) of each picture, (n,), from its cosines with all generic captions, (n, captions)."""
        if self.temperature is None:
            return np.zeros(len(scores), dtype=np.float32)
        top = scores.max(axis=1)
        rest = np.exp((scores - top[:, None]) / self.temperature).sum(axis=1)
        crowd: FloatArray = (top + self.temperature * np.log(rest)).astype(np.float32)
        return crowd

    def usual(self, questions: FloatArray) -> FloatArray | None:
        """What each of ``questions`` (q, dim) usually reaches, (q,); ``None`` where that is not known."""
        return None if self.reference is None else self.reference.usual(questions)

    def fits(
        self, cosines: FloatArray, corrected: FloatArray, crowd: FloatArray, usual: FloatArray | np.float32 | None
    ) -> FloatArray:
        """The fits of pairs, all arrays of one shape or broadcast to it."""
        if self.temperature is None:
            fits = corrected
        else:
            fits = -self.temperature * np.logaddexp(np.float32(0), (crowd - cosines) / self.temperature)
            if usual is not None:
                fits = fits + corrected
        found: FloatArray = (fits if usual is None else fits - usual).astype(np.float32)
        return found


@dataclass(frozen=True, eq=False)
class Tops:
    """The best pictures of each generic caption, best first: ``scores`` that order them, and their ``fits``, both
    float32 (up to ``TOGETHER``, captions).
    """

    scores: FloatArray
    fits: FloatArray

    @classmethod
    def none(cls, captions: int) -> Tops:
        """Of no pictures."""
        empty = np.zeros((0, captions), dtype=np.float32)
        return cls(empty, empty)

    def promising(self, scores: FloatArray) -> npt.NDArray[np.int64]:
        """Which rows of ``scores`` (rows, captions) are among the best of any caption: their numbers."""
        if len(self.scores) < TOGETHER:
            return np.arange(len(scores), dtype=np.int64)
        return np.flatnonzero((scores > self.scores[-1]).any(axis=1)).astype(np.int64)

    def merged(self, scores: FloatArray, fits: FloatArray) -> Tops:
        """With further pictures, both arrays (rows, captions)."""
        scores, fits = np.concatenate([self.scores, scores]), np.concatenate([self.fits, fits])
        order = np.argsort(-scores, axis=0, kind="stable")[:TOGETHER]
        return Tops(np.take_along_axis(scores, order, 0), np.take_along_axis(fits, order, 0))

    def best(self) -> FloatArray:
        """Sorted: how well each caption is answered by its best picture."""
        return np.sort(self.fits[0]) if len(self.fits) else np.zeros(0, dtype=np.float32)

    def together(self) -> FloatArray:
        """Sorted: how well each caption is answered by its best pictures together."""
        return np.sort(self.fits.mean(axis=0)) if len(self.fits) else np.zeros(0, dtype=np.float32)


def share_beaten(fits: FloatArray, sorted_fits: FloatArray) -> FloatArray | None:
    """The share of ``sorted_fits`` that each of ``fits`` beats, 0 to 1; ``None`` where too few are known."""
    if len(sorted_fits) < 8:
        return None
    ranks = np.arange(1, len(sorted_fits) + 1) / (len(sorted_fits) + 1)
    shares: FloatArray = np.interp(fits, sorted_fits, ranks, left=0.0, right=1.0).astype(np.float32)
    return shares
