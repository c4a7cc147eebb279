"""Any encoder, looking at each picture more than once: whole, mirrored, and its middle.

The vector of a picture is the mean of what the encoder gives for these views, at length 1. One pass over a picture
depends on chance details of its framing; the mean of several does less (test-time augmentation: Krizhevsky et al.,
2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1). Texts are encoded as ever, so
a query costs what it did; indexing costs three times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import VectorError
from mmsearch.models.encoders.base import Encoder, FloatArray

if TYPE_CHECKING:
    from PIL.Image import Image

VIEWS = 3
MIDDLE = 0.75
"""Of both sides, what the third view keeps; chosen on Flickr8k dev with the built-in encoder."""
_NOTE = "mean of the whole, the mirrored and the middle 3/4"


def digest_with_views(digest: str) -> str:
    """The digest of an encoder that looks more than once, from that of the plain one.

    It is another one because files that hold vectors carry it, and those of both may lie side by side.
    """
    return sha256(f"{digest} {_NOTE}".encode()).hexdigest()


def reads_texts_as(digest: str, plain: str) -> bool:
    """Whether the encoder of this ``digest`` is the one of the digest ``plain``, with several views or without: what is
    known of texts for one holds for the other.
    """
    return digest in (plain, digest_with_views(plain))


def further_views(image: Image) -> tuple[Image, Image]:
    """An upright picture mirrored, and its middle."""
    from PIL.Image import Transpose

    width, height = image.size
    left, top = round((1 - MIDDLE) / 2 * width), round((1 - MIDDLE) / 2 * height)
    return image.transpose(Transpose.FLIP_LEFT_RIGHT), image.crop((left, top, width - left, height - top))


class ManyViews(Encoder):
    """``inner``, looking at every picture ``VIEWS`` times. Another encoder than ``inner``: its vectors are others."""

    def __init__(self, inner: Encoder, name: str) -> None:
        self.inner = inner
        self.spec = replace(
            inner.spec,
            name=name,
            digest=digest_with_views(inner.spec.digest),
            preprocessing=f"{inner.spec.preprocessing}; {_NOTE}",
        )
        self.input_size = round(inner.input_size / MIDDLE)
        self.batch_size = max(1, inner.batch_size // VIEWS)
        self.has_int8 = inner.has_int8
        self.max_text_tokens = inner.max_text_tokens

    def prepare_image(self, image: Image) -> npt.NDArray[np.generic]:
        """An upright RGB image to (VIEWS, …), each as ``inner`` prepares it."""
        return np.stack([self.inner.prepare_image(view) for view in (image, *further_views(image))])

    def encode_prepared(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """(n, VIEWS, …) to (n, dim) rows of length 1.

        Raises:
            VectorError: ``inputs`` has another shape.
        """
        if len(inputs) == 0:
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        if inputs.ndim < 2 or inputs.shape[1] != VIEWS:
            raise VectorError(
                f"{self.spec.name} takes (n, {VIEWS}, …) as prepare_image makes them, found {inputs.shape}"
            )
        each = self.inner.encode_prepared(inputs.reshape(-1, *inputs.shape[2:]))
        sums = each.reshape(len(inputs), VIEWS, -1).sum(axis=1)
        rows: FloatArray = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return rows

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """See :meth:`Encoder.encode_texts`."""
        return self.inner.encode_texts(texts)

    def encode_queries(self, texts: Sequence[str], language: str | None = None) -> FloatArray:
        """See :meth:`Encoder.encode_queries`."""
        return self.inner.encode_queries(texts, language)

    def reads_query(self, text: str, language: str | None = None) -> bool:
        """See :meth:`Encoder.reads_query`."""
        return self.inner.reads_query(text, language)

    def telling_words(self, text: str, language: str | None = None) -> float | None:
        """See :meth:`Encoder.telling_words`."""
        return self.inner.telling_words(text, language)

    def patch_scores(self, image: Image, vector: FloatArray) -> FloatArray | None:
        """Those of the whole picture."""
        return self.inner.patch_scores(image, vector)

    def caption_centroids(self) -> FloatArray | None:
        """See :meth:`Encoder.caption_centroids`."""
        return self.inner.caption_centroids()

    def photo_sample(self) -> FloatArray | None:
        """See :meth:`Encoder.photo_sample`."""
        return self.inner.photo_sample()

    def prepare_for_queries(self) -> None:
        """See :meth:`Encoder.prepare_for_queries`."""
        self.inner.prepare_for_queries()

    def count_tokens(self, text: str) -> int:
        """See :meth:`Encoder.count_tokens`."""
        return self.inner.count_tokens(text)
