"""The contract of an encoder: an image encoder and a text encoder that map into one space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmsearch.core.options import EncoderOptions as EncoderOptions
from mmsearch.core.types import EncoderSpec

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

FloatArray = npt.NDArray[np.float32]


class Encoder(ABC):
    """A dual encoder. Rows that it returns are float32, of length 1, ready for inner products.

    ``prepare_image`` runs in decode workers, ``encode_prepared`` in the encoding thread, so that a pipeline
    can overlap both. Methods may be called from several threads.

    One of your own sets ``spec``, ``input_size`` and ``max_text_tokens`` and has the four abstract methods::

        class Brightness(Encoder):
            input_size, max_text_tokens = 16, 64

            def __init__(self, options=None):  # `options` is left out where the constructor takes none
                self.spec = EncoderSpec("my_encoders:Brightness", digest="brightness-1", dim=2, preprocessing="16x16")

            def prepare_image(self, image):
                return np.asarray(image.convert("L").resize((16, 16)))

            def encode_prepared(self, inputs):
                return self._rows(inputs.reshape(len(inputs), 256).mean(axis=1) / 255)

            def encode_texts(self, texts):
                return self._rows(np.array([float("bright" in text) for text in texts]))

            def count_tokens(self, text):
                return len(text.split())

            def _rows(self, brightness):
                return np.stack([np.cos(brightness), np.sin(brightness)], axis=1).astype(np.float32)

    ``mmsearch index FOLDER --model my_encoders:Brightness`` and `open_encoder` open it by that name;
    ``docs/own_models.md`` goes through one.
    """

    spec: EncoderSpec
    input_size: int
    """The shorter side, in pixels, that an image must have for ``prepare_image`` to lose nothing."""
    batch_size: int = 16
    """How many images one call of ``encode_prepared`` should get."""
    max_text_tokens: int
    """Longer texts are cut by the text encoder; passages should be cut before."""
    has_int8: bool = False
    """Whether ``precision`` in its options changes anything on a CPU."""
    directory: Path | None = None
    """The folder of its weights, where it has one."""

    @abstractmethod
    def prepare_image(self, image: Image) -> npt.NDArray[np.generic]:
        """An RGB image, already upright, to the array of one model input (without the batch axis)."""

    @abstractmethod
    def encode_prepared(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """Stacked outputs of ``prepare_image``, (n, …), to (n, dim) rows of length 1; n may be 0."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1; n may be 0."""

    def encode_queries(self, texts: Sequence[str], language: str | None = None) -> FloatArray:
        """n texts that look for something to (n, dim) rows of length 1. An encoder with several text encoders chooses
        by ``language`` (such as ``de``), where that is given, else by the texts. Here: ``encode_texts``.
        """
        return self.encode_texts(texts)

    def reads_query(self, text: str, language: str | None = None) -> bool:
        """Whether any part of a query means something to the encoder: of signs and scripts that it does not know, any
        vector is as good as another. Here: always.
        """
        return True

    def telling_words(self, text: str, language: str | None = None) -> float | None:
        """How many words of a query tell pictures apart, where the encoder knows that of its language; ``None`` where
        it is to be counted as in English. Here: always.
        """
        return None

    def encode_images(self, images: Sequence[Image]) -> FloatArray:
        """n RGB images, upright, to (n, dim) rows of length 1, in batches of ``batch_size``."""
        rows = [np.zeros((0, self.spec.dim), dtype=np.float32)]
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            rows.append(self.encode_prepared(np.stack([self.prepare_image(image) for image in batch])))
        return np.concatenate(rows)

    def patch_scores(self, image: Image, vector: FloatArray) -> FloatArray | None:
        """What each part of an upright RGB image adds to its score with ``vector`` (dim,), float32 (rows, columns) over
        the whole picture, up to a factor and a constant; ``None`` where the encoder cannot tell.
        """
        return None

    def caption_centroids(self) -> FloatArray | None:
        """Where captions lie in the space, by which hubs are known: see `encoders.caption_centroids`. ``None``
        where that is not known.
        """
        from mmsearch.models.encoders.caption_centroids import read_caption_centroids

        return None if self.directory is None else read_caption_centroids(self.directory, self.spec.digest)

    def photo_sample(self) -> FloatArray | None:
        """Where photos lie in the space, (photos, dim), by which texts that are hubs are known. ``None`` where the
        encoder brings none.
        """
        from mmsearch.models.encoders.caption_centroids import read_photo_sample

        return None if self.directory is None else read_photo_sample(self.directory, self.spec.digest)

    def prepare_for_queries(self) -> None:  # noqa: B027  (most encoders have nothing to do)
        """Called once after indexing: does what makes the text queries of later processes start quickly."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """How many tokens of ``max_text_tokens`` a text takes, special tokens included."""


class EncoderFamily(ABC):
    """Encoders whose names have one form, such as ``hf:ORG/NAME``.

    The names that methods get are spelled as ``canonical`` gives them, or ``local-dir:`` with an absolute path; never
    with ``+views``. No method reaches the network.
    """

    is_on_hub = False
    """Whether `mmsearch models pull` fetches such models."""

    def canonical(self, name: str) -> str:
        """The one spelling of a name, under which an index remembers its encoder."""
        return name

    def check(self, name: str) -> None:  # noqa: B027  (some are always there)
        """Looks whether ``open`` would find all it needs.

        Raises:
            ModelMissing: the weights, or a package, are not on this machine; the message says how to get them.
            EncoderError: there is no such encoder.
        """

    @abstractmethod
    def open(self, name: str, options: EncoderOptions, *, texts_only: bool = False) -> Encoder:
        """Opens an encoder. ``texts_only``: texts are likely all that it will get; images must work nevertheless.

        Raises:
            ModelMissing: as ``check``.
            EncoderError: there is no such encoder, or it cannot be loaded.
        """
