"""How often hits of a text are right, by their scores; and what is known for that: hubness and reference photos.

# Relevance

A cosine of 0.3 is a good hit for one query and noise for another. So a score is read beside what the same text gets
from photos that no index holds (`Reference`): ``z``, how many standard deviations it lies above their mean. The
relevance of a hit is the chance that it is right,

    1 / (1 + e^−(a + b·z + c·n + d·n·z + e·f))

``n`` is the logarithm of the number of telling words: one photo is right for a long caption, many are for a name.
What other languages than English have of them the encoder counts (`Encoder.telling_words`).
``f`` is how far the 99th percentile of the photos falls short of 2.5 standard deviations: of what photos show often
("person") no few stand out, and it is right at a lower score. ``b`` and ``d`` are positive, so it rises with the score
and never rises down a list. a to e are fitted by logistic regression (Platt 1999) on several labelled libraries:
`scripts/fit_relevance.py`, docs/relevance.md.

For encoders without reference photos, the store's own pictures stand in for them, mixed with what generic captions
score there, so that three photos of dogs do not make a dog look ordinary (`PRIOR`).

# Hubness

By how much the scores of pictures that lie near every text are corrected: NNN (Bowman et al. 2024), weighed.

Where an image asks for text passages, those are corrected that lie near every photo, in full: by their mean similarity
to the nearest photos that the encoder has learned from (`Encoder.photo_sample`), or of those that ship for it
(`Reference`). For pictures:

A picture's hubness is its mean similarity to its nearest captions, one float a row: captions that the encoder has
learned from where it brings some (`Encoder.caption_centroids`), else generic ones. ``alpha`` times that, times the
weight of the query, is taken off the scores.

By the encoder's own captions a query counts as far as it is one: `caption_shares` tells. Generic captions are
further from what is searched for than those the encoder knows, and count half.

# Reference photos

What a text's scores are like among photos of all kinds.

Some queries score high everywhere ("a person in a place"), others low; and some passages lie near every photo and
are found for photos that they do not describe. `reference.npz` has the vectors of two thousand photos, by one encoder,
squeezed to their first principal components. `scripts/reference.py` makes it anew when the weights or the captions have
changed; until then, and for other encoders, nothing is known of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsearch.core.arrays import dequantised, read_npz
from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.caption_centroids import caption_shares, nearest_mean, nearness
from mmsearch.models.encoders.views import reads_texts_as

FREQUENT = 2.5
"""What photos show often has its 99th percentile below so many standard deviations."""
PRIOR = 64
"""So many pictures of a store weigh as much as what generic captions score there."""
ENOUGH = 200
"""So many pictures have a 99th percentile worth looking at."""
GENERIC = 0.5
"""What every query counts where only generic captions are known: more loses on captions and on names."""
SHIPPED = Path(__file__).parent / "reference.npz"
"""Of the built-in encoder; those of others lie beside it, see `reference_file`."""
HIGH = 0.99
"""The share of the photos that score lower than what counts as a high score."""


# Hubness


def hubness_of_vectors(vectors: FloatArray, scores: FloatArray, centroids: FloatArray | None) -> FloatArray:
    """How much of a hub each of ``vectors`` (n, dim) is, (n,): by the encoder's own ``centroids`` of captions, or by
    its ``scores`` with the generic ones, (n, captions).
    """
    return nearest_mean(scores) if centroids is None else nearness(vectors, centroids)


def hubness_of_passages(vectors: FloatArray, photos: FloatArray | None, reference: Reference | None) -> FloatArray:
    """How much of a hub among photos each of ``vectors`` (n, dim) of text passages is, (n,): by the ``photos`` that the
    encoder brings, else by the reference photos; 0 where there are neither.
    """
    if photos is not None:
        return nearness(vectors, photos)
    return np.zeros(len(vectors), np.float32) if reference is None else reference.nearness(vectors)


def learned_numbers(centroids: FloatArray | None) -> int:
    """How many numbers of the space, from the first, an encoder's own captions have; 0 where it brings none."""
    return 0 if centroids is None else centroids.shape[1]


def weights(queries: FloatArray, learned: int) -> FloatArray:
    """How much the correction counts for each of ``queries`` (q, dim) of length 1: (q,), 0 to 1.

    ``learned``: see `learned_numbers`.
    """
    if not learned:
        return np.full(len(queries), GENERIC, dtype=np.float32)
    return caption_shares(queries, learned)


# Reference photos


@dataclass(frozen=True, eq=False)
class Reference:
    """Photos as ``middle`` + ``places`` @ ``axes``, float32 (dim,), (photos, components) and (components, dim).

    ``corrections`` (photos,) is what hubness takes off their scores with a query that counts in full, ``learned``
    tells how much others count (`weights`). ``name`` tells it from others. ``curve``: what was fitted for the encoder.
    """

    middle: FloatArray
    axes: FloatArray
    places: FloatArray
    corrections: FloatArray
    learned: int
    name: str
    curve: Curve | None = None

    def spread(self, query: FloatArray, weight: float) -> TextSpread:
        """How the photos score for one ``query``, float32 (dim,); hubness counts ``weight`` for it."""
        return TextSpread.of(self._scores(query[None])[0] - np.float32(weight) * self.corrections)

    def nearness(self, passages: FloatArray) -> FloatArray:
        """How much of a hub among photos each of ``passages``, float32 (n, dim), is: (n,)."""
        return nearest_mean(self._scores(passages))

    def _scores(self, texts: FloatArray) -> FloatArray:
        scores: FloatArray = (texts @ self.middle)[:, None] + (texts @ self.axes.T) @ self.places.T
        return scores


def reference_file(digest: str) -> Path:
    """Where the reference photos of the encoder of this ``digest`` lie, if any ship for it."""
    own = SHIPPED.with_name(f"reference-{digest[:12]}.npz")
    return own if own.exists() else SHIPPED


def load_reference(digest: str, captions: str, path: Path | None = None) -> Reference | None:
    """What ships for the encoder of this ``digest`` and the caption bank of this digest; ``None`` where none does.

    It serves that encoder with several views as well: a query reaches nearly the same among its vectors.
    """
    stored = read_npz(path or reference_file(digest), lambda encoder: reads_texts_as(digest, encoder))
    try:
        if stored is None or str(stored["captions"]) != captions:
            return None
        fitted = stored.get("curve")
        return Reference(
            stored["middle"].astype(np.float32),
            dequantised(stored["axes"], stored["axes_scale"]),
            dequantised(stored["places"], stored["places_scale"]),
            stored["corrections"].astype(np.float32),
            int(stored["learned"]),
            str(stored["name"]),
            None if fitted is None else Curve(*fitted.tolist()),
        )
    except (ValueError, KeyError, TypeError):
        return None


# Relevance


@dataclass(frozen=True)
class TextSpread:
    """How a text's scores are spread over photos: ``mean`` and ``deviation``, and ``high``, the 99th percentile in
    standard deviations from the mean.
    """

    mean: float
    deviation: float
    high: float = FREQUENT

    @classmethod
    def of(cls, scores: FloatArray) -> TextSpread:
        """That of ``scores`` (photos,)."""
        mean, deviation = float(scores.mean()), max(float(scores.std()), 1e-6)
        place = int(HIGH * (len(scores) - 1))  # the quantile itself, not a mean of two neighbours, needs no full sort
        return cls(mean, deviation, (float(np.partition(scores, place)[place]) - mean) / deviation)


@dataclass(frozen=True)
class Pooled:
    """The scores of generic captions with all pictures of a store: their ``count``, sum and sum of squares."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def plus(self, scores: FloatArray) -> Pooled:
        """With further scores, of any shape."""
        exact = scores.astype(np.float64)
        return Pooled(
            self.count + exact.size, self.total + float(exact.sum()), self.squares + float(np.square(exact).sum())
        )

    def spread(self, scores: FloatArray) -> TextSpread | None:
        """How a text is spread whose ``scores`` with some pictures of the store, (n,), are known: the fewer they are,
        the more it is what generic captions score; ``None`` where these are not known.
        """
        if not self.count:
            return None
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean**2, 0.0)
        if not len(scores):
            return TextSpread(mean, max(variance**0.5, 1e-6))
        own, share = TextSpread.of(scores), len(scores) / (len(scores) + PRIOR)
        mixed = mean + share * (own.mean - mean)
        variance += share * (own.deviation**2 - variance)
        return TextSpread(mixed, max(variance**0.5, 1e-6), own.high if len(scores) >= ENOUGH else FREQUENT)


@dataclass(frozen=True)
class Curve:
    """The numbers a to e of the formula."""

    constant: float
    score: float
    words: float
    words_and_score: float
    frequent: float

    def relevance(self, totals: FloatArray, spread: TextSpread, words: float) -> FloatArray:
        """The chance that hits of these scores (n,) are right, for a text of so many telling ``words``: (n,)."""
        n = math.log(max(1, words))
        rest = self.constant + self.words * n + self.frequent * max(FREQUENT - spread.high, 0.0)
        z = (totals.astype(np.float64) - spread.mean) / spread.deviation
        odds = np.clip(rest + (self.score + self.words_and_score * n) * z, -30, 30)
        chances: FloatArray = (1 / (1 + np.exp(-odds))).astype(np.float32)
        return chances


CURVE = Curve(-3.614, 0.9575, -2.8806, 0.5085, 4.1037)
"""Where none was fitted for an encoder: that of the built-in one."""


@dataclass(frozen=True, eq=False)
class FitScale:
    """What relevance is read from, of one encoder: the reference photos that ship for it, if any do."""

    reference: Reference | None

    @property
    def curve(self) -> Curve:
        """How often hits are right, by their scores."""
        return CURVE if self.reference is None or self.reference.curve is None else self.reference.curve

    @property
    def name(self) -> str:
        """Tells what is measured of segments apart."""
        return f"relevance 2 {self.reference and self.reference.name}"


def never_rising(relevance: Sequence[float | None]) -> list[float | None]:
    """Relevance in the order of hits, none above one before it; where it is not known it stays so.

    For hits of one text and one group it does not rise by itself. Here hits of several groups meet, some that a
    reranker moved, and words that speak for certain.
    """
    least, held = 1.0, []
    for value in relevance:
        if value is not None:
            least = min(least, value)
        held.append(None if value is None else least)
    return held


def share_beaten(fits: FloatArray, sorted_fits: FloatArray) -> FloatArray | None:
    """The share of ``sorted_fits`` that each of ``fits`` beats, 0 to 1; ``None`` where too few are known."""
    if len(sorted_fits) < 8:
        return None
    ranks = np.arange(1, len(sorted_fits) + 1) / (len(sorted_fits) + 1)
    shares: FloatArray = np.interp(fits, sorted_fits, ranks, left=0.0, right=1.0).astype(np.float32)
    return shares
