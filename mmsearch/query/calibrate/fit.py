"""How well queries fit pictures, comparable between queries and between pictures; and what is known for that: hubness
and reference photos.

# Fits

A cosine of 0.3 is a good hit for one query and noise for another. The fit of a query and a picture is

    τ · log( e^(s/τ) / (e^(s/τ) + Σ e^(b/τ)) )  +  c − u

``s`` is the cosine of the two, ``b`` those of the picture and each generic caption, ``c`` the score corrected for
hubness and ``u`` what the query usually reaches at best among unrelated photos (`Reference`). So a picture that
generic captions describe better speaks against the query, and a query that finds something everywhere has to
find more. The last two terms are left out where no reference photos ship for an encoder.

τ is the temperature that the encoder was trained with where it is known (CLIP compares texts by softmax). Encoders
that were trained pair by pair (SigLIP) know of no comparison between texts: there, the fit is the corrected score.

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

What a text's scores are like among photos that have nothing to do with it.

Some queries score high everywhere ("a person in a place"), others low; and some passages lie near every photo and
answer for photos that they do not describe. How high a text rises by chance is read from photos that no index holds:
`reference.npz` has the vectors of a thousand, by one encoder, squeezed to their first principal components.
`scripts/reference.py` makes it anew when the weights or the captions have changed; until then, and for other encoders,
nothing is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmsearch.core.arrays import dequantised, read_npz
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.caption_centroids import caption_shares, nearest_mean, nearness
from mmsearch.models.encoders.views import reads_texts_as

TEMPERATURE = np.float32(0.03)
"""Where the encoder does not say its own."""
TOGETHER = 5
"""So many of the first hits speak together for what an index holds."""


GENERIC = 0.5
"""What every query counts where only generic captions are known: more loses on captions and on names."""
SHIPPED = Path(__file__).parent / "reference.npz"
USUAL = 0.99
"""Which share of the photos a query's usual best score leaves below it."""


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
    tells how much others count (`weights`). ``name`` tells it from others.
    """

    middle: FloatArray
    axes: FloatArray
    places: FloatArray
    corrections: FloatArray
    learned: int
    name: str

    def usual(self, queries: FloatArray) -> FloatArray:
        """The corrected score that only few of the photos reach, (q,), for ``queries`` float32 (q, dim)."""
        scores = self._scores(queries)
        scores -= weights(queries, self.learned)[:, None] * self.corrections
        # The quantile itself, not a mean between two neighbours, needs no full sort.
        place = int(USUAL * (scores.shape[1] - 1))
        usual: FloatArray = np.partition(scores, place, axis=1)[:, place].astype(np.float32)
        return usual

    def nearness(self, passages: FloatArray) -> FloatArray:
        """How much of a hub among photos each of ``passages``, float32 (n, dim), is: (n,)."""
        return nearest_mean(self._scores(passages))

    def _scores(self, texts: FloatArray) -> FloatArray:
        scores: FloatArray = (texts @ self.middle)[:, None] + (texts @ self.axes.T) @ self.places.T
        return scores


def load_reference(digest: str, captions: str, path: Path = SHIPPED) -> Reference | None:
    """What ships for the encoder of this ``digest`` and the caption bank of this digest; ``None`` where none does.

    It serves that encoder with several views as well: a query reaches nearly the same among its vectors.
    """
    stored = read_npz(path, lambda encoder: reads_texts_as(digest, encoder))
    try:
        if stored is None or str(stored["captions"]) != captions:
            return None
        return Reference(
            stored["middle"].astype(np.float32),
            dequantised(stored["axes"], stored["axes_scale"]),
            dequantised(stored["places"], stored["places_scale"]),
            stored["corrections"].astype(np.float32),
            int(stored["learned"]),
            str(stored["name"]),
        )
    except (ValueError, KeyError):
        return None


# Fits


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

    def usual(self, queries: FloatArray) -> FloatArray | None:
        """What each of ``queries`` (q, dim) usually reaches, (q,); ``None`` where that is not known."""
        return None if self.reference is None else self.reference.usual(queries)

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
