"""By how much the scores of pictures that lie near every text are corrected: NNN (Bowman et al. 2024), weighed.

Where an image asks for text passages, those are corrected that lie near every photo, in full: by their mean similarity
to the nearest photos that the encoder has learned from (`Encoder.photo_sample`), or of those that ship for it
(`mmsearch.query.calibrate.reference`). For pictures:

A picture's hubness is its mean similarity to its nearest captions, one float a row: captions that the encoder has
learned from where it brings some (`Encoder.caption_centroids`), else generic ones. ``alpha`` times that, times the
weight of the question, is taken off the scores.

By the encoder's own captions a question counts as far as it is one: `caption_shares` tells. Generic captions are
further from what is asked than those the encoder knows, and count half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.caption_centroids import caption_shares, nearest_mean, nearness

if TYPE_CHECKING:
    from mmsearch.query.calibrate.reference import Reference

GENERIC = 0.5
"""What every question counts where only generic captions are known: more loses on captions and on names."""


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


def weights(questions: FloatArray, learned: int) -> FloatArray:
    """How much the correction counts for each of ``questions`` (q, dim) of length 1: (q,), 0 to 1.

    ``learned``: see `learned_numbers`.
    """
    if not learned:
        return np.full(len(questions), GENERIC, dtype=np.float32)
    return caption_shares(questions, learned)
